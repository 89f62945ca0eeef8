"""The folder of a saved model: its format, and what is said of others."""

import json

import pytest

from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.saved_model import FORMAT, SETTINGS_FILE, SavedModelError, read_settings
from models.sampling.settings import Settings
from tests.unit import tiny


@pytest.fixture
def folder(tmp_path):
    tiny.pipeline().save_pretrained(tmp_path)
    return tmp_path


def change(folder, **keys) -> None:
    path = folder / SETTINGS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_a_saved_model_says_its_format_and_reads_back(folder):
    assert json.loads((folder / SETTINGS_FILE).read_text())["format"] == FORMAT
    assert ImageConductorPipeline.from_pretrained(folder).settings == tiny.SETTINGS


def test_weights_may_be_read_by_whoever_may_read_the_configs(folder):
    modes = {path.name: path.stat().st_mode for path in folder.rglob("*.*") if path.suffix in (".safetensors", ".json")}
    assert len(modes) > 5 and len(set(modes.values())) == 1


def test_a_model_from_before_formats_were_numbered_is_read(folder):
    path = folder / SETTINGS_FILE
    old = json.loads(path.read_text())
    del old["format"]
    path.write_text(json.dumps(old))
    assert read_settings(folder) == tiny.SETTINGS
    path.unlink()
    assert read_settings(folder) == Settings()


def test_a_newer_format_an_unknown_key_and_a_damaged_file_are_refused_with_the_remedy(folder):
    change(folder, format=FORMAT + 1)
    with pytest.raises(SavedModelError, match=rf"{SETTINGS_FILE}: format {FORMAT + 1} is newer .* update the program"):
        read_settings(folder)
    change(folder, format=FORMAT, tempo=3)
    with pytest.raises(SavedModelError, match="unknown key tempo; remove it"):
        read_settings(folder)
    (folder / SETTINGS_FILE).write_text("{")
    with pytest.raises(SavedModelError, match="damaged: .* save the model again"):
        read_settings(folder)


def test_a_folder_without_motion_controlnet_is_named(folder, tmp_path):
    (folder / "motion_controlnet").rename(tmp_path / "elsewhere")
    with pytest.raises(SavedModelError, match="no motion_controlnet"):
        ImageConductorPipeline.from_pretrained(folder)

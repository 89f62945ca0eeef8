"""Reading params.yaml, also as DVC writes it for an experiment."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from stages.params import ParamsError, load_params

ROOT = Path(__file__).parents[2]


def test_an_experiment_of_dvc_changes_what_it_says_and_nothing_else(tmp_path):
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    apply_overrides(path, ["object_lora.orthogonal_loss=off", "motion_controlnet.start=null"])  # writes off, not "off"

    committed = load_params(ROOT / "params.yaml")
    changed = {
        "object_lora": committed.object_lora.model_copy(update={"orthogonal_loss": "off"}),
        "motion_controlnet": committed.motion_controlnet.model_copy(update={"start": None}),
    }
    assert load_params(path) == committed.model_copy(update=changed)
    assert load_params(path).clips.crop_bars is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["clips.quality.max_text=0.01"], "quality.max_text needs text: rapidocr"),
        (["tracks.hide_drifted=0.03", "tracks.round_trip=false"], "hide_drifted needs round_trip: true"),
    ],
)
def test_a_limit_needs_what_measures_it(tmp_path, changes, message):
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    apply_overrides(path, changes)
    with pytest.raises(ParamsError, match=message):
        load_params(path)


def test_no_scale_to_evaluate_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    apply_overrides(path, ["evaluate.trajectory_guidance_scales=[]"])
    with pytest.raises(ParamsError, match="evaluate.trajectory_guidance_scales"):
        load_params(path)

"""The stage latents: what it writes, what it loads, and what it makes again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import latents
from stages.data.arrays import read_latents
from stages.data.curated import CuratedClip
from stages.data.paths import FOUNDATION, latents_folder
from stages.data.shards import shard_of
from stages.data.tables import ContractError
from stages.params import load_params
from tests.unit import tiny

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SERIAL = PARAMS.model_copy(update={"compute": PARAMS.compute.model_copy(update={"backend": "serial"})})
FRAMES = np.random.default_rng(0).integers(0, 256, (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)


@pytest.fixture
def foundation(tmp_path, monkeypatch):
    """A tiny foundation on disk, without the networks that encoding does not need, and two clips."""
    monkeypatch.chdir(tmp_path)
    made = tiny.pipeline().foundation
    made.save(FOUNDATION)
    for part in ("unet", "image_controlnet"):
        shutil.rmtree(FOUNDATION / part)
    (FOUNDATION / "weights.json").write_text("{}")
    monkeypatch.setattr(latents, "read_clip", lambda path: FRAMES)
    return made


def clips(monkeypatch, *captions: str) -> None:
    nowhere = Path("nowhere")
    made = [CuratedClip(f"clip{n}", "train", text, nowhere, nowhere, nowhere, None) for n, text in enumerate(captions)]
    monkeypatch.setattr(latents, "curated_clips", lambda split: made)


def times() -> dict[str, int]:
    folder = latents_folder("mixed")
    return {item: shard_of(folder.path(item)).stat().st_mtime_ns for item in folder.ids()}


def test_a_clip_becomes_latents_and_text_by_the_encoders_alone(foundation, monkeypatch):
    clips(monkeypatch, "a circle")
    latents.run("mixed", SERIAL)
    encoded, text = read_latents(latents_folder("mixed").path("clip0"))
    pictures = torch.from_numpy(FRAMES).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(encoded, foundation.encode_images(pictures), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(text, foundation.encode_text(["a circle"])[0], rtol=1e-2, atol=1e-2)


def test_only_what_changed_is_encoded_again(foundation, monkeypatch):
    clips(monkeypatch, "a circle", "a square")
    latents.run("mixed", SERIAL)
    before = times()
    clips(monkeypatch, "a circle", "a blue square")
    latents.run("mixed", SERIAL)
    after = times()
    assert after["clip0"] == before["clip0"] and after["clip1"] != before["clip1"]
    exact = SERIAL.model_copy(update={"latents": SERIAL.latents.model_copy(update={"precision": "bf16"})})
    latents.run("mixed", exact)
    assert all(times()[name] != after[name] for name in after)


def test_a_clip_that_ends_its_process_is_named_with_a_remedy(monkeypatch):
    clips(monkeypatch, "a circle")
    job = latents.LatentJob(latents.curated_clips("mixed")[0], Path("f"), PARAMS.latents, "")
    with pytest.raises(ContractError, match="latents.batch_size"):
        latents._crashed(job)

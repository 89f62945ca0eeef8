"""Which strokes pre-training shows, what they belong to, and what it reports and takes up again."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from PIL import Image

from models.networks.codec import LappedCodec
from models.networks.foundation import Foundation
from models.pictures.album import write_album
from models.pixels import to_uint8
from models.pretraining import KINDS, SceneBatch, choose_strokes, make_pool, motion_error
from models.scenes import MAX_OBJECTS, moving_parts, sample_scenes
from models.worlds import procedural_world
from stages import pretrain
from stages.params import Params, load_params
from stages.run.mlflow_runs import SilentRun
from stages.run.mlflow_store import connect, newest_run
from stages.train.trainee import begin

ROOT = Path(__file__).parents[2]
SIZE = 12
TINY = {
    "output": "out",
    "codec_images": 100,
    "pool": 6,
    "steps": 2,
    "batch_size": 2,
    "channels": [8, 8],
    "norm_groups": 4,
    "text_width": 16,
    "validate_every": 1,
    "checkpoint_every": 1,
}


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    video = load_params(ROOT / "profiles/pocket.yaml").video
    foundation = Foundation.load(ROOT / "pretrained/pocket")
    return make_pool(procedural_world(), foundation, range(SIZE), (video.width, video.height), video.frames, "cpu")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_point_moves_with_the_object_that_covers_it_or_with_the_scene():
    scenes = sample_scenes(["object"] * 8, 8, list(range(8)), movers=1)
    centres = (scenes.centres[:, :, 0] + torch.tensor([0.75, 0.5])) * 64 - 0.5
    parts = moving_parts(scenes, centres, 96, 64)
    corner = moving_parts(scenes, torch.zeros(8, 1, 2), 96, 64)
    assert (parts[:, 0] == 1).all()  # the first object moves
    assert (parts[:, 1:][scenes.present[:, 1:]] == 0).all()  # the others rest
    assert (corner == 0).all()


def test_a_few_strokes_leave_no_motion_unsaid(batch):
    tracks, visibility = choose_strokes(batch, "sparse", generator())
    assert tracks.shape[:2] == visibility.shape[:2] == batch.tracks.shape[:2] and tracks.shape[2] <= 8
    for item in range(SIZE):
        starts = tracks[item, 0][visibility[item, 0]]
        nearest = torch.cdist(starts, batch.tracks[item, 0]).argmin(1)
        named = set(batch.parts[item][nearest].tolist())
        trackable = batch.visibility[item, 0] & batch.visibility[item, 1]
        needed = set(batch.parts[item][trackable].tolist()) - {0}
        if batch.camera[item].max() > 0:
            needed |= {0}
        assert needed <= named <= set(range(MAX_OBJECTS + 1)), KINDS[item % 3]


def test_dense_strokes_are_all_tracks_and_none_is_none(batch):
    tracks, visibility = choose_strokes(batch, "dense", generator())
    assert tracks is batch.tracks and visibility is batch.visibility
    assert choose_strokes(batch, "none", generator()) is None


def test_motion_error_is_small_for_the_real_videos_and_one_for_a_still_copy(batch):
    foundation = Foundation.load(ROOT / "pretrained/pocket")
    real = to_uint8(foundation.decode(batch.latents))
    still = np.repeat(real[:, :1], real.shape[1], 1)
    assert motion_error(real, batch) < 0.25
    assert motion_error(still, batch) == pytest.approx(1, abs=0.01)


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(folder: Path, **changes) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["pretrain"] |= TINY | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(folder / "params.yaml")


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_in_mlflow_where_its_checkpoint_is(in_an_empty_folder, monkeypatch):
    params = write_params(in_an_empty_folder)
    monkeypatch.setattr(pretrain, "VALIDATION_SCENES", pretrain.SHOWN)

    def stop(*args):
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(pretrain, "export", stop)  # after the checkpoint of step 1
        pretrain.main()
    pretrain.main()

    _, experiment = connect(params.mlflow)
    client = MlflowClient()
    [run] = client.search_runs([experiment], "tags.stage = 'pretrain'")
    assert run.info.status == "FINISHED"
    assert run.info.run_id == newest_run(experiment, "pretrain", {"checkpoint": pretrain.checkpoint_file(params).stem})
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert {point.step for point in losses} == {1, 2}
    assert {"lr", "sparse_camera", "none_mixed", "motion_error"} <= set(run.data.metrics)
    assert [f.path for f in client.list_artifacts(run.info.run_id, "samples")] == [
        "samples/000001.png", "samples/000002.png"]  # fmt: skip
    sheet = np.asarray(Image.open("reports/pretrain/000002.png"))
    assert sheet.ndim == 3 and sheet.std() > 10
    rows = list(csv.DictReader(Path("out/curve.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "1"] and float(rows[1]["motion_error"]) > 0


def test_a_run_is_made_longer_but_one_with_other_parameters_starts_afresh(in_an_empty_folder):
    params = write_params(in_an_empty_folder)
    assert pretrain.checkpoint_file(write_params(in_an_empty_folder, steps=3)) == pretrain.checkpoint_file(params)
    for other in ({"learning_rate": 1e-4}, {"condition": ["flow"]}, {"seed": 1}):
        changed = write_params(in_an_empty_folder, **other)
        assert pretrain.checkpoint_file(changed) != pretrain.checkpoint_file(params)


def small_album(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number, (kind, split) in enumerate(
        [("photograph", "train"), ("cutout", "train"), ("photograph", "validation"), ("cutout", "validation")]
    ):
        size = (40, 40, 4) if kind == "cutout" else (120, 180, 3)
        row = {"sha256": f"{number:064x}", "package": "here", "file": f"{number}", "licence": "none", "kind": kind}
        rows.append((row | {"label": f"a {kind}", "split": split}, rng.integers(0, 255, size, np.uint8)))
    write_album(folder, rows)


@pytest.mark.slow
def test_a_run_on_pictures_exports_what_another_run_begins_with(in_an_empty_folder, monkeypatch):
    monkeypatch.setattr(pretrain, "VALIDATION_SCENES", pretrain.SHOWN)
    small_album(in_an_empty_folder / "album")
    pictures = {"world": "pictures", "pictures": "album", "codec": "lapped", "codec_steps": 2, "refiner_width": 4}
    pictures |= {"latent_channels": 8, "channels": [16, 16], "warp_start": True, "steps": 1, "sampler_steps": [1, 2]}
    pretrain.pretrain(write_params(in_an_empty_folder, **pictures, output="first"), "cpu", SilentRun())
    first = Foundation.load("first")
    assert isinstance(first.vae, LappedCodec)
    row = next(csv.DictReader(Path("first/curve.csv").read_text().splitlines()))
    assert float(row["motion_error_2_steps"]) >= 0 and float(row["sharpness_2_steps"]) > 0
    params = write_params(in_an_empty_folder, **pictures, output="second", start="first")
    trainee = begin(params, pretrain.worlds(params)[0], Path("unused"), "cpu")
    assert all(
        torch.equal(a, b) for a, b in zip(first.unet.parameters(), trainee.foundation.unet.parameters(), strict=True)
    )
    assert all(parameter.requires_grad for parameter in trainee.parameters())
    assert not any(parameter.requires_grad for parameter in trainee.foundation.vae.parameters())
    assert trainee.foundation.latent_space == first.latent_space and not Path("unused").exists()


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["mlflow", "dvc", "prefect", "pytorch_fid", "av"]))
from importlib import util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "mlflow" else find(name, *rest)
from stages import pretrain
pretrain.VALIDATION_SCENES = pretrain.SHOWN
pretrain.main()
"""


@pytest.mark.slow
def test_it_runs_where_little_is_installed_and_says_so(in_an_empty_folder):
    write_params(in_an_empty_folder, steps=1)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[0] == "pretrain: no MLflow here; see out/curve.csv and reports/pretrain"
    assert "MLflow" not in "".join(ran.stdout.splitlines()[1:])
    assert Path("out/curve.csv").exists() and Path("reports/pretrain/000001.png").exists()
    assert not Path("mlflow.db").exists()

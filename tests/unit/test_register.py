"""Registration of a tiny model: one folder, one version, and the alias only if it is good enough."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest

from models.networks.foundation import SUBFOLDERS
from models.sampling.pipeline import ImageConductorPipeline
from stages import register
from stages.params import Params, load_params
from tests.unit import tiny

ROOT = Path(__file__).parents[2]


def evaluation(camera: float | None, objects: float | None) -> dict:
    return {
        "cam_mc": {"still": {"px": 10.0}, "camera_lora": {"px": camera}},
        "obj_mc": {"still": {"px": 20.0}, "object_lora": {"px": objects}},
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """The outputs of the stages before, as they leave them."""
    root = tmp_path_factory.mktemp("register")
    saved, artifacts = root / "saved", root / "artifacts"
    tiny.pipeline().save_pretrained(saved)
    for path in saved.iterdir():
        owner = artifacts / "foundation" if path.name in SUBFOLDERS or path.suffix == ".json" else artifacts
        owner.mkdir(parents=True, exist_ok=True)
        shutil.move(path, owner / path.name)
    for source in register.TRAINED:
        (root / source / "loss.csv").write_text("step,loss\n1,1\n")
    (root / "metrics").mkdir()
    return root


@pytest.fixture
def params(workspace, monkeypatch) -> Params:
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(register, "CODE", ROOT / "models")
    params = load_params(ROOT / "params.yaml")
    video = params.video.model_copy(update={"width": tiny.WIDTH, "height": tiny.HEIGHT, "frames": tiny.FRAMES})
    settings = params.mlflow.model_copy(
        update={"tracking_uri": f"sqlite:///{workspace}/mlflow.db", "artifact_location": str(workspace / "mlruns")}
    )
    sampler = params.sampler.model_copy(update={"num_inference_steps": 1})
    return params.model_copy(update={"video": video, "sampler": sampler, "mlflow": settings})


def champion() -> str:
    return str(mlflow.MlflowClient().get_model_version_by_alias("image-conductor", "champion").version)


def test_the_folder_is_a_model_without_curves(params):
    register.assemble(register.MODEL, params)

    pipe = ImageConductorPipeline.from_pretrained(register.MODEL)
    assert (pipe.settings.width, pipe.settings.frames) == (tiny.WIDTH, tiny.FRAMES)
    assert pipe.settings.guidance_scale == params.sampler.guidance_scale
    assert not list(register.MODEL.rglob("*.csv"))


def test_weights_that_are_missing_are_named(params, tmp_path, monkeypatch):
    (tmp_path / "camera_lora").mkdir()
    monkeypatch.setattr(register, "TRAINED", (tmp_path / "camera_lora",))

    with pytest.raises(FileNotFoundError, match="camera_lora: no weights"):
        register.assemble(register.MODEL, params)


def test_a_good_model_is_registered_served_and_gets_the_alias_and_a_worse_one_does_not(params, capsys):
    register.EVALUATION.write_text(json.dumps(evaluation(9.0, 18.0)))
    register.run(params)
    first = register.REGISTRATION.read_bytes()

    assert json.loads(first)["alias_moves"] is True
    assert champion() == "1"
    version = mlflow.MlflowClient().get_model_version("image-conductor", "1")
    assert version.tags["weights"] == json.loads(first)["weights"]
    assert version.description == json.loads(first)["why"]

    model = mlflow.pyfunc.load_model("models:/image-conductor@champion")
    assert model.metadata.signature is not None
    (answer,) = model.predict([register.example_request(params)])
    assert answer.num_frames == tiny.FRAMES

    register.run(params)
    assert register.REGISTRATION.read_bytes() == first, "content must not depend on when or how often it ran"
    assert champion() == "2"

    register.EVALUATION.write_text(json.dumps(evaluation(9.0, 18.1)))
    register.run(params)
    assert json.loads(register.REGISTRATION.read_text())["alias_moves"] is False
    assert champion() == "2"
    assert (
        "version 3, not champion: cam_mc 9.00 px is within its limit 9.00 px; obj_mc 18.10" in capsys.readouterr().out
    )


def test_what_was_not_measured_does_not_pass(params):
    checks = register.judge(evaluation(None, 1.0), params.register_)

    assert not checks["cam_mc"].passed
    assert checks["obj_mc"].passed
    assert "cam_mc was not measured" in register.explain(checks)

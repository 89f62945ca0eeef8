"""One folder for the model, MLflow's registry for its service: `python -m stages.register`.

Writes artifacts/model and metrics/registration.json. A new version is registered each time; the alias moves to it only
if its trajectory errors, against those of a still copy of the image, are within the limits of params.yaml.
"""

import base64
import importlib.metadata
import io
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from models.pixels import to_uint8
from models.sampling.lora_files import copy_as_safetensors
from models.sampling.model_index import CHECKPOINT_FILE, write_index
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.saved_model import copy_personal_files, write_settings
from models.sampling.settings import Settings
from models.scenes import render, sample_scenes
from stages.data.items import weight_files, write_atomically
from stages.data.paths import (
    CAMERA_LORA,
    EVALUATION,
    FOUNDATION,
    MODEL,
    MOTION_CONTROLNET,
    OBJECT_LORA,
    REGISTRATION,
)
from stages.params import Params, RegisterParams
from stages.run.command import run_stage
from stages.run.mlflow_runs import provenance, stage_run, weights_hash
from stages.run.mlflow_store import connect, newest_run

TRAINED = (MOTION_CONTROLNET, CAMERA_LORA, OBJECT_LORA)
CODE = Path("models")
SERVING_PACKAGES = (
    "accelerate av diffusers mlflow numpy opencv-python-headless peft pillow pydantic safetensors scipy tokenizers "
    "torch torchvision transformers"
).split()


@dataclass(frozen=True)
class Check:
    """One trajectory error against its limit, in pixels; None where it was not measured."""

    px: float | None
    limit: float | None
    passed: bool

    def __str__(self) -> str:
        if self.px is None or self.limit is None:
            return "was not measured"
        return f"{self.px:.2f} px {'is within' if self.passed else 'is not within'} its limit {self.limit:.2f} px"


def run(params: Params) -> None:
    assemble(MODEL, params)
    checks = judge(json.loads(EVALUATION.read_text(encoding="utf-8")), params.register_)
    moved = all(check.passed for check in checks.values())
    decision = {
        "model_name": params.register_.model_name,
        "weights": weights_hash(MODEL),
        "alias": params.register_.alias,
        "alias_moves": moved,
        "why": explain(checks),
        "checks": {name: asdict(check) for name, check in checks.items()},
    }
    version = log_and_register(params, moved, decision)
    write_atomically(REGISTRATION, (json.dumps(decision, indent=2) + "\n").encode())
    alias = f"now {params.register_.alias}" if moved else f"not {params.register_.alias}"
    print(
        f"{params.register_.model_name} version {version}, {alias}: {decision['why']}\n"
        f"  one folder: {MODEL}   decision: {REGISTRATION}\n"
        f"  look at it: make ui   serve it: make serve   use it: image-conductor generate --model {MODEL} …"
    )


def assemble(folder: Path, params: Params) -> None:
    """Copy foundation, motion ControlNet and LoRAs, without curves and checkpoints, into one folder."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(FOUNDATION, folder)
    for source in TRAINED:
        (folder / source.name).mkdir()
        for path in weight_files(source):
            shutil.copyfile(path, folder / source.name / path.name)
    video = params.video.model_dump(include={"width", "height", "frames", "fps"})
    chosen = params.register_
    personal = {name: lora.weight for name, lora in chosen.personal_loras.items()}
    settings = Settings(**video, **params.sampler.model_dump(), personal_loras=personal)
    write_settings(folder, settings)
    if chosen.checkpoint:
        copy_as_safetensors(Path(chosen.checkpoint), folder / CHECKPOINT_FILE)
    copy_personal_files(folder, {name: Path(lora.path) for name, lora in chosen.personal_loras.items()})
    write_index(folder, settings)
    if chosen.checkpoint or personal:
        ImageConductorPipeline.from_pretrained(folder)  # files that do not fit fail here, by name


def judge(evaluation: Mapping[str, Any], settings: RegisterParams) -> dict[str, Check]:
    """The trajectory errors of the two LoRAs against those of a still copy."""
    return {
        "cam_mc": _check(evaluation["cam_mc"], "camera_lora", settings.max_cam_mc_ratio),
        "obj_mc": _check(evaluation["obj_mc"], "object_lora", settings.max_obj_mc_ratio),
    }


def explain(checks: Mapping[str, Check]) -> str:
    """The decision in one sentence."""
    return "; ".join(f"{name} {check}" for name, check in checks.items())


def log_and_register(params: Params, moved: bool, decision: Mapping[str, Any]) -> str:
    """Log the model and its decision to MLflow, register it, move the alias if `moved`; return the new version."""
    name, alias = params.register_.model_name, params.register_.alias
    mlflow, experiment = connect(params.mlflow)
    with stage_run("register", params) as run, mlflow.start_run(run_id=run.must_have_begun()):
        links = _links(experiment)
        run.tags(links)
        request = example_request(params)
        logging.getLogger("mlflow.types.type_hints").setLevel(logging.ERROR)  # pydantic checks what MLflow cannot
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(CODE / "serving" / "pyfunc.py"),
            artifacts={"model": str(MODEL)},
            model_config={"precision": params.register_.precision},
            code_paths=[str(CODE)],
            input_example=[request],
            pip_requirements=[f"{package}=={public_version(package)}" for package in SERVING_PACKAGES],
            registered_model_name=name,
        )
        mlflow.pyfunc.load_model(info.model_uri).predict([request])  # a version that cannot answer fails the stage
        version = str(info.registered_model_version)
        client = mlflow.MlflowClient()
        for tag, value in {**provenance(), **links, "weights": decision["weights"]}.items():
            client.set_model_version_tag(name, version, tag, value)
        client.update_model_version(name, version, decision["why"])
        if moved:
            client.set_registered_model_alias(name, alias, version)
        mlflow.log_dict(dict(decision), REGISTRATION.name)
    return version


def public_version(package: str) -> str:
    """The installed version without its local part: PyPI has no 2.13.0+cpu."""
    return importlib.metadata.version(package).partition("+")[0]


def example_request(params: Params) -> dict[str, Any]:
    """A request that the service answers: a procedural scene, and a stroke to the right from its middle."""
    width, height = params.video.width, params.video.height
    frame = render(sample_scenes(["object"], 1, [0]), width, height)[0, 0]
    picture = io.BytesIO()
    Image.fromarray(to_uint8(frame)).save(picture, "PNG")
    return {
        "image": base64.b64encode(picture.getvalue()).decode(),
        "trajectories": [[[width / 2, height / 2], [width * 3 / 4, height / 2]]],
        "mode": "object",
        "prompt": "",
        "seed": 0,
    }


def _check(errors: Mapping[str, Any], method: str, ratio: float) -> Check:
    px, still = (errors.get(name, {}).get("px") for name in (method, "still"))
    if px is None or still is None:
        return Check(px, None, False)
    return Check(px, ratio * still, px <= ratio * still)


def _links(experiment: str) -> dict[str, str]:
    """Tags that lead from the registered model to the hashes of its weights and the runs that made and measured it."""
    hashes = {f"weights.{folder.name}": weights_hash(folder) for folder in TRAINED}
    makers = {
        f"run.{folder.name}": newest_run(
            experiment, folder.name, {f"weights.{folder.name}": hashes[f"weights.{folder.name}"]}
        )
        for folder in TRAINED
    }
    makers["run.evaluate"] = newest_run(experiment, "evaluate", hashes)
    return hashes | {name: run for name, run in makers.items() if run}


if __name__ == "__main__":
    run_stage("stages.register")

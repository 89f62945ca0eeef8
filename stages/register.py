"""One folder for the model, MLflow's registry for its service: `python -m stages.register`.

Writes artifacts/model and metrics/registration.json. Weights and settings that were not registered before become a new
version. The alias moves to it only if its trajectory errors, against those of a still copy of the image, are within the
limits of params.yaml, and if it is better than the version that has the alias.

python -m stages.register --explain 3    # the decision on version 3, computed again from what was logged
python -m stages.register --again        # the same weights as a new version, with the code as it is now
"""

import argparse
import base64
import importlib.metadata
import io
import json
import logging
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from models.pixels import to_uint8
from models.sampling.identity import weights_hash
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
from stages.params import Params, RegisterParams, load_params
from stages.registry.challenge import Challenge, compare
from stages.registry.explain import explain_version
from stages.registry.own_package import own_package
from stages.registry.versions import EVIDENCE, IDENTITY, Versions, identity
from stages.run.command import one_line_errors, run_stage
from stages.run.locks import only_run
from stages.run.mlflow_runs import provenance, stage_run
from stages.run.mlflow_store import connect, newest_run

TRAINED = (MOTION_CONTROLNET, CAMERA_LORA, OBJECT_LORA)
CODE = Path("models")
TEMPORARY_FOLDERS = "/.dvc/tmp/exps/"
TEMPORARY = "this is a temporary folder of `dvc exp run`"
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


def run(params: Params, again: bool = False) -> None:
    """Assemble the model, decide on it and register it.

    Args:
        again: register also weights that are registered already, with the code as it is now.
    """
    assemble(MODEL, params)
    checks = judge(json.loads(EVALUATION.read_text(encoding="utf-8")), params.register_)
    if in_temporary_experiment(Path.cwd()) and not params.register_.temporary_experiments:
        decision = decide(params, checks, Challenge(f"{TEMPORARY}: nothing is registered", False))
        write_atomically(REGISTRATION, as_json(decision))
        print(
            f"register: {TEMPORARY}, so nothing is registered. After `dvc exp apply`, register it by: "
            "dvc repro --force --single-item register"
        )
        return
    versions = Versions(params)
    same = None if again else versions.same_as(MODEL)
    if same is not None:
        decision, version = versions.decision(same), str(same.version)
        print(
            f"register: version {version} has these weights and settings already, nothing is registered; "
            "with new code: python -m stages.register --again"
        )
    else:
        with TemporaryDirectory() as pictures:
            compared = compare(versions, MODEL, params, Path(pictures))
            decision = decide(params, checks, compared, versions.held())
            version = log_and_register(params, versions, decision, compared, Path(pictures))
    write_atomically(REGISTRATION, as_json(decision))
    champion = versions.champion()
    alias = f"{'now' if champion and str(champion.version) == version else 'not'} {versions.alias}"
    print(
        f"{versions.name} version {version}, {alias}: {decision['why']}\n"
        f"  one folder: {MODEL}   decision: python -m stages.register --explain {version}\n"
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


def decide(params: Params, checks: Mapping[str, Check], compared: Challenge, held: str | None = None) -> dict[str, Any]:
    """Join the absolute limits, the comparison with the champion and the hold on the alias, as JSON can hold them."""
    passed = all(check.passed for check in checks.values())
    reasons = [explain(checks), compared.why, *([f"the alias is held: {held}"] if held else [])]
    return {
        "model_name": params.register_.model_name,
        "weights": weights_hash(MODEL),
        "alias": params.register_.alias,
        "alias_moves": passed and compared.may_move and not held,
        "why": "; ".join(reasons),
        "checks": {name: asdict(check) for name, check in checks.items()},
        "challenge": compared.verdict,
    }


def in_temporary_experiment(folder: Path) -> bool:
    """Whether a folder is, or is in, one that `dvc exp run --temp` or `--queue` made and will delete."""
    return TEMPORARY_FOLDERS in folder.resolve().as_posix()


def as_json(decision: Mapping[str, Any]) -> bytes:
    """The text of metrics/registration.json."""
    return (json.dumps(decision, indent=2) + "\n").encode()


def log_and_register(
    params: Params, versions: Versions, decision: Mapping[str, Any], compared: Challenge, pictures: Path
) -> str:
    """Log the model, its decision and the evidence to MLflow, register it, move the alias; return the new version."""
    mlflow, experiment = connect(params.mlflow)
    with stage_run("register", params) as run, mlflow.start_run(run_id=run.must_have_begun()):
        links = _links(experiment)
        run.tags(links)
        request = example_request(params)
        logging.getLogger("mlflow.types.type_hints").setLevel(logging.ERROR)  # pydantic checks what MLflow cannot
        with own_package(CODE) as package:
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(package / "serving" / "pyfunc.py"),
                artifacts={"model": str(MODEL)},
                model_config={"precision": params.register_.precision},
                code_paths=[str(package)],
                input_example=[request],
                pip_requirements=[f"{name}=={public_version(name)}" for name in SERVING_PACKAGES],
                registered_model_name=versions.name,
            )
        mlflow.pyfunc.load_model(info.model_uri).predict([request])  # a version that cannot answer fails the stage
        version = str(info.registered_model_version)
        tags = {**provenance(), **links, "weights": decision["weights"], IDENTITY: identity(MODEL)}
        versions.tag(version, tags, decision["why"])
        mlflow.log_dict(dict(decision), REGISTRATION.name)
        if compared.values:
            mlflow.log_dict(compared.values, EVIDENCE)
            mlflow.log_artifacts(str(pictures), "pictures")
        if decision["alias_moves"]:
            versions.move_alias(version)
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


def main() -> None:
    """Run the stage, register again, or explain a version."""
    if not sys.argv[1:]:
        run_stage("stages.register")
        return
    parser = argparse.ArgumentParser(
        prog="python -m stages.register", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--explain", metavar="N", help="say why version N got the alias or did not; nothing is changed")
    what.add_argument("--again", action="store_true", help="register the same weights with the code as it is now")
    options = parser.parse_args()
    with one_line_errors("register"):
        if options.explain:
            print(explain_version(load_params(), options.explain))
        else:
            with only_run("register"):
                run(load_params(), again=True)


if __name__ == "__main__":
    main()

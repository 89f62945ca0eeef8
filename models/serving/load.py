"""Find a model by its address, a folder or a registered one, and put it where it computes."""

import re
from pathlib import Path

import torch

from models.errors import UserError
from models.sampling.identity import ModelIdentity, weights_hash
from models.sampling.pipeline import ImageConductorPipeline

REGISTRY_SCHEMES = ("models:", "runs:")
REGISTERED_META = "registered_model_meta"  # MLflow's file of name and version beside a fetched model


class ModelNotFound(UserError):
    """There is no model at this address."""


def load_model(address: str, dtype: torch.dtype = torch.float32) -> ImageConductorPipeline:
    """A saved model's folder, or a registered model such as `models:/image-conductor@champion`.

    Raises:
        UserError: there is none, or the folder is no saved model.
    """
    folder = model_folder(address)
    pipeline = ImageConductorPipeline.from_pretrained(folder, dtype)
    pipeline.identity = ModelIdentity(weights_hash(folder), registered_version(address, folder))
    return pipeline


def note_added(pipeline: ImageConductorPipeline, lora: str, file: Path) -> None:
    """Note in a loaded model's identity that community weights were put on top; `lora` is empty for a checkpoint."""
    assert pipeline.identity is not None
    pipeline.identity = pipeline.identity.with_added(lora, file)


def registered_version(address: str, folder: Path) -> str:
    """The name and version, name/number, of the registered model that a saved model's folder belongs to, or nothing.

    MLflow writes a file with both beside what it fetches from its registry. An alias is looked up.
    """
    import yaml

    if match := re.fullmatch(r"models:/([^/@]+)([/@])([^/]+)", address):
        name, kind, version = match.groups()
        if kind == "/" and version.isdecimal():
            return f"{name}/{version}"
        if kind == "@":
            from mlflow import MlflowClient

            return f"{name}/{MlflowClient().get_model_version_by_alias(name, version).version}"
    noted = folder.parent.parent / REGISTERED_META
    if folder.parent.name != "artifacts" or not noted.is_file():
        return ""
    found = yaml.safe_load(noted.read_text(encoding="utf-8"))
    return f"{found['model_name']}/{found['model_version']}" if found.get("model_version") else ""


def model_folder(address: str) -> Path:
    """The folder behind a model's address; see `load_model`.

    Raises:
        ModelNotFound: there is none.
    """
    if address.startswith(REGISTRY_SCHEMES):
        return registered_model_folder(address)
    folder = Path(address)
    if not folder.is_dir():
        raise ModelNotFound(f"--model: {folder}: no such folder; make one with `make repro`, or give another")
    return folder


def registered_model_folder(address: str) -> Path:
    """Fetch the saved model behind `models:/name@alias` or `models:/name/version`.

    Raises:
        ModelNotFound: there is no such model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{address}/artifacts/model"))
    except (MlflowException, OSError) as error:
        raise ModelNotFound(f"{address}: no such model in {mlflow.get_tracking_uri()}: {error}") from None


def place(pipeline: ImageConductorPipeline, offload: bool = False) -> ImageConductorPipeline:
    """Put the networks on a GPU if there is one; with `offload`, VAE and text encoder only while they work.

    Raises:
        UserError: `offload` without a GPU.
    """
    if not torch.cuda.is_available():
        if offload:
            raise UserError("--offload: there is no GPU to take networks from")
    elif offload:
        pipeline.enable_model_cpu_offload(device="cuda")
    else:
        pipeline.to("cuda")
        torch.backends.cuda.matmul.allow_tf32 = True  # as in evaluation
    return pipeline

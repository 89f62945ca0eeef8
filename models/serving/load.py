"""Find a model by its address, a folder or a registered one, and put it where it computes."""

from pathlib import Path

import torch

from models.errors import UserError
from models.sampling.pipeline import ImageConductorPipeline

REGISTRY_SCHEMES = ("models:", "runs:")


class ModelNotFound(UserError):
    """There is no model at this address."""


def load_model(address: str, dtype: torch.dtype = torch.float32) -> ImageConductorPipeline:
    """A saved model's folder, or a registered model such as `models:/image-conductor@champion`.

    Raises:
        UserError: there is none, or the folder is no saved model.
    """
    return ImageConductorPipeline.from_pretrained(model_folder(address), dtype)


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

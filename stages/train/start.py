"""The weights that training of the motion ControlNet starts from (`motion_controlnet.start`, `pretrain.start`)."""

from pathlib import Path

from models.networks.networks import MotionControlNet
from stages.params import ParamsError


def read_start(folder: str | Path, field: str = "motion_controlnet.start") -> MotionControlNet:
    """The network in a folder that `field` of params.yaml names. Raises ParamsError if there is none."""
    missing = f"params.yaml: {field}: {folder}: no motion ControlNet in diffusers' layout; set {field} to null"
    if not (Path(folder) / MotionControlNet.config_name).is_file():  # else the path were looked for on the hub
        raise ParamsError(missing)
    try:
        return MotionControlNet.from_pretrained(folder)
    except OSError as error:
        raise ParamsError(missing) from error

"""The weights that training of the motion ControlNet starts from (`motion_controlnet.start`)."""

from models.networks.networks import MotionControlNet
from stages.params import ParamsError


def read_start(folder: str) -> MotionControlNet:
    """The network in `motion_controlnet.start`. Raises ParamsError if there is none."""
    try:
        return MotionControlNet.from_pretrained(folder)
    except OSError as error:
        raise ParamsError(
            f"params.yaml: motion_controlnet.start: {folder}: no motion ControlNet in diffusers' layout; set it to null"
        ) from error

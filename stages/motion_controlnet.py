"""The motion ControlNet, dense then sparse, on mixed data (Sec 2.4): `python -m stages.motion_controlnet`.

Beside the frozen foundation, a fresh one or from `motion_controlnet.start`. Output: artifacts/motion_controlnet/, in
diffusers' layout, and its curves.
"""

from pathlib import Path

import numpy as np

from models.foundation import Foundation
from models.networks import MotionControlNet as ControlNet
from models.networks import motion_controlnet_like
from stages.params import MotionControlNet, Params, ParamsError
from stages.training import FOUNDATION, Job, Listener, run_training_stage, train
from stages.training_items import Strokes, TrainingItems
from stages.validation import Validation

OUTPUT = Path("artifacts/motion_controlnet")


def run(params: Params, tracker: Listener) -> None:
    settings = params.motion_controlnet
    foundation = Foundation.load(FOUNDATION)
    network = first_weights(settings, foundation).requires_grad_(True)
    job = Job(
        "motion_controlnet",
        settings,
        settings.dense_steps + settings.sparse_steps,
        network,
        list(network.parameters()),
        TrainingItems("mixed", params, settings, lambda item: strokes(item, settings)),
        Validation("mixed", params, settings),
        save=lambda: network.save_pretrained(OUTPUT),
        patient_until=settings.dense_steps + settings.sparse_warmup_steps,
    )
    train(job, foundation, OUTPUT, tracker)


def first_weights(settings: MotionControlNet, foundation: Foundation) -> ControlNet:
    """What training begins with: the weights in `settings.start`, or a fresh network beside the foundation.

    Raises:
        ParamsError: `start` is no motion ControlNet, or has another condition or flow scale than the settings.
    """
    if settings.start is None:
        return motion_controlnet_like(
            foundation.image_controlnet,
            list(settings.condition),
            settings.flow_scale,
            foundation.codec_factor,
            settings.seed,
        )
    start = read_start(settings.start)
    for key in ("condition", "flow_scale"):
        found, wanted = start.config[key], getattr(settings, key)
        if found != wanted:
            raise ParamsError(
                f"params.yaml: motion_controlnet.{key} is {wanted}, but {settings.start} was made with {found}; "
                "change it, or set motion_controlnet.start to null"
            )
    return start


def read_start(folder: str) -> ControlNet:
    """The network in `motion_controlnet.start`. Raises ParamsError if there is none."""
    try:
        return ControlNet.from_pretrained(folder)
    except OSError as error:
        raise ParamsError(
            f"params.yaml: motion_controlnet.start: {folder}: no motion ControlNet in diffusers' layout; set it to null"
        ) from error


def strokes(item: int, settings: MotionControlNet) -> Strokes:
    """Dense in the first steps, then sparse; during the warm-up between them, sparse in a rising share of the steps."""
    step = item // settings.batch_size
    share = (step - settings.dense_steps + 1) / (settings.sparse_warmup_steps + 1)
    return "sparse" if np.random.default_rng([settings.seed, 2, step]).random() < share else "dense"


if __name__ == "__main__":
    run_training_stage("motion_controlnet", OUTPUT, run)

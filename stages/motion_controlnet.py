"""The motion ControlNet, dense then sparse, on mixed data (Sec 2.4): `python -m stages.motion_controlnet`.

Training starts from the weights in `motion_controlnet.start` or from a fresh network. Output:
artifacts/motion_controlnet/ in diffusers' layout, with curves.
"""

import numpy as np

from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet, motion_controlnet_like
from stages.data.paths import FOUNDATION, MOTION_CONTROLNET
from stages.params import MotionControlNetParams, Params, ParamsError
from stages.train.checkpoint import shaping
from stages.train.items import StrokeKind, TrainingItems
from stages.train.launch import run_training_stage
from stages.train.loop import Job, Listener, train
from stages.train.start import read_start
from stages.train.validation import Validation


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
        TrainingItems("mixed", params, settings, lambda item: stroke_kind_by_step(item, settings)),
        Validation("mixed", params, settings, "controlnet"),
        save=lambda: network.save_pretrained(MOTION_CONTROLNET),
        shaped_by=shaping(run, "mixed"),
        patient_until=settings.dense_steps + settings.sparse_warmup_steps,
    )
    train(job, foundation, MOTION_CONTROLNET, tracker)


def first_weights(settings: MotionControlNetParams, foundation: Foundation) -> MotionControlNet:
    """The network that training starts from: the weights in `settings.start`, or a fresh network.

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


def stroke_kind_by_step(item: int, settings: MotionControlNetParams) -> StrokeKind:
    """Dense in the first steps, then sparse; during the warm-up between them, sparse in a rising share of the steps."""
    step = item // settings.batch_size
    share = (step - settings.dense_steps + 1) / (settings.sparse_warmup_steps + 1)
    return "sparse" if np.random.default_rng([settings.seed, 2, step]).random() < share else "dense"


if __name__ == "__main__":
    run_training_stage("motion_controlnet", MOTION_CONTROLNET, run)

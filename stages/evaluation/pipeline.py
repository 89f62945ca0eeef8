"""The networks of the evaluation: the trained pipeline, the one that training started from, and both trackers."""

from collections.abc import Mapping
from typing import Any

from models.estimators import PointTracker, load_second_tracker, load_tracker_of_generated, second_tracker
from models.lora.sets import load_lora
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from models.precision import frozen_dtype
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from stages.data.paths import CAMERA_LORA, FOUNDATION, MOTION_CONTROLNET, OBJECT_LORA
from stages.params import Params, Precision
from stages.run.device import best_device
from stages.train.start import read_start


def settings_of(params: Params) -> Settings:
    """Frame size, frames and sampling settings of the evaluated model."""
    video = params.video.model_dump(include={"width", "height", "frames", "fps"})
    return Settings(**video, **params.sampler.model_dump())


def load_pipeline(settings: Settings, precision: Precision) -> ImageConductorPipeline:
    """The pipeline with all trained parts, on a GPU if there is one."""
    network = MotionControlNet.from_pretrained(MOTION_CONTROLNET)
    load_lora(network, "camera", CAMERA_LORA)
    load_lora(network, "object", OBJECT_LORA)
    device = best_device()
    dtype = frozen_dtype(precision, device)
    network.requires_grad_(False).eval().to(dtype)
    pipe = ImageConductorPipeline.assemble(Foundation.load(FOUNDATION, dtype), network, settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def start_folder(params: Params) -> str | None:
    """The folder of the motion ControlNet that training started from; None if there was no such start."""
    settings = params.motion_controlnet
    return settings.start if settings.source is None else None


def start_pipeline(pipe: ImageConductorPipeline, folder: str) -> ImageConductorPipeline:
    """The pipeline with the motion ControlNet in `folder`, beside the foundation of `pipe`."""
    network = read_start(folder).requires_grad_(False).eval().to(pipe.unet.dtype)
    start = ImageConductorPipeline.assemble(pipe.foundation, network, pipe.settings)
    start.set_progress_bar_config(disable=True)
    return start.to(pipe.device)


def load_trackers(name: str, options: Mapping[str, Any]) -> dict[str, PointTracker]:
    """The curation's tracker `name` in its lenient form for generated videos, and a second one of another method."""
    return {name: load_tracker_of_generated(name, **options), second_tracker(name): load_second_tracker(name)}

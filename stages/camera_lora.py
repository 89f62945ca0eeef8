"""The camera LoRA on camera-only data (Eq. 1): `python -m stages.camera_lora`.

theta_cam = theta_0 + dtheta_cam. Motion ControlNet and foundation are frozen. A share of the items has a single stroke
at a random place, so the LoRA learns that one stroke on an object means the camera.
"""

import numpy as np

from models.lora.sets import add_lora, save_lora
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from stages.data.paths import CAMERA_LORA, FOUNDATION, MOTION_CONTROLNET
from stages.params import CameraLoraParams, Params
from stages.train.checkpoint import shaping
from stages.train.items import StrokeKind, TrainingItems
from stages.train.launch import run_training_stage
from stages.train.loop import Job, Listener, train
from stages.train.validation import Validation


def run(params: Params, tracker: Listener) -> None:
    settings = params.camera_lora
    network = MotionControlNet.from_pretrained(MOTION_CONTROLNET)
    parameters = add_lora(network, "camera", settings.rank, settings.seed)
    items = TrainingItems("camera", params, settings, lambda item: stroke_kind_by_item(item, settings))
    job = Job(
        "camera_lora",
        settings,
        settings.steps,
        network,
        parameters,
        items,
        Validation("camera", params, settings, "camera", settings.single_stroke_share),
        save=lambda: save_lora(network, "camera", CAMERA_LORA),
        shaped_by=shaping(run, "camera"),
    )
    train(job, Foundation.load(FOUNDATION), CAMERA_LORA, tracker)


def stroke_kind_by_item(item: int, settings: CameraLoraParams) -> StrokeKind:
    """Item i of the stage has one stroke or a draw of 1 to 8, by the stage's seed."""
    single = np.random.default_rng([settings.seed, 2, item]).random() < settings.single_stroke_share
    return "single" if single else "sparse"


if __name__ == "__main__":
    run_training_stage("camera_lora", CAMERA_LORA, run)

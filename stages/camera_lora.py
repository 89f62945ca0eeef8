"""The camera LoRA on camera-only data (Eq. 1): `python -m stages.camera_lora`.

theta_cam = theta_0 + dtheta_cam: motion ControlNet and foundation stay as they are. A share of the items has a lone
stroke, on whatever it may lie, so that one stroke on an object is learned to mean the camera.
"""

from pathlib import Path

import numpy as np

from models.foundation import Foundation
from models.lora import add_lora, save_lora
from models.networks import MotionControlNet
from stages import motion_controlnet
from stages.params import CameraLora, Params
from stages.training import FOUNDATION, Job, Listener, run_training_stage, train
from stages.training_items import Strokes, TrainingItems
from stages.validation import Validation

OUTPUT = Path("artifacts/camera_lora")


def run(params: Params, tracker: Listener) -> None:
    settings = params.camera_lora
    network = MotionControlNet.from_pretrained(motion_controlnet.OUTPUT)
    parameters = add_lora(network, "camera", settings.rank, settings.seed)
    items = TrainingItems("camera", params, settings, lambda item: strokes(item, settings))
    job = Job(
        "camera_lora",
        settings,
        settings.steps,
        network,
        parameters,
        items,
        Validation("camera", params, settings, settings.single_stroke_share),
        save=lambda: save_lora(network, "camera", OUTPUT),
    )
    train(job, Foundation.load(FOUNDATION), OUTPUT, tracker)


def strokes(item: int, settings: CameraLora) -> Strokes:
    """Item i of the stage has one stroke or a draw of 1 to 8, by the stage's seed."""
    single = np.random.default_rng([settings.seed, 2, item]).random() < settings.single_stroke_share
    return "single" if single else "sparse"


if __name__ == "__main__":
    run_training_stage("camera_lora", OUTPUT, run)

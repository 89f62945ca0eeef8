"""The motion ControlNet, dense then sparse, on mixed data (Sec 2.4): `python -m stages.motion_controlnet`.

A fresh one beside the frozen foundation. Output: artifacts/motion_controlnet/, in diffusers' layout, and its loss.csv.
"""

from pathlib import Path

from models.foundation import Foundation
from models.networks import motion_controlnet_like
from stages.params import Params
from stages.tracking import StageRun
from stages.training import FOUNDATION, Job, TrainingItems, run_training_stage, train

OUTPUT = Path("artifacts/motion_controlnet")


def run(params: Params, tracker: StageRun) -> None:
    settings = params.motion_controlnet
    foundation = Foundation.load(FOUNDATION)
    network = motion_controlnet_like(
        foundation.image_controlnet,
        list(settings.condition),
        settings.flow_scale,
        foundation.codec_factor,
        settings.seed,
    )
    last_dense = settings.dense_steps * settings.batch_size
    items = TrainingItems("mixed", params, settings, lambda item: "dense" if item < last_dense else "sparse")
    steps = settings.dense_steps + settings.sparse_steps
    network.requires_grad_(True)
    train(
        Job("motion_controlnet", settings, steps, network, list(network.parameters()), items),
        foundation,
        OUTPUT,
        tracker,
    )
    network.save_pretrained(OUTPUT)


if __name__ == "__main__":
    run_training_stage("motion_controlnet", OUTPUT, run)

"""The motion ControlNet, dense then sparse, on mixed data (Sec 2.4): `python -m stages.motion_controlnet`.

A fresh one beside the frozen foundation. Output: artifacts/motion_controlnet/, in diffusers' layout, and its loss.csv.
"""

import sys
from pathlib import Path

from models.foundation import Foundation, FoundationError
from models.networks import motion_controlnet_like
from stages.contracts import ContractError
from stages.params import Params, ParamsError, load_params
from stages.tracking import StageRun, stage_run
from stages.training import FOUNDATION, Job, TrainingItems, train

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


def main() -> None:
    try:
        params = load_params()
        with stage_run("motion_controlnet", params) as tracker:
            run(params, tracker)
            tracker.artifact(OUTPUT / "loss.csv")
            tracker.weights(OUTPUT)
    except (ParamsError, ContractError, FoundationError) as error:
        sys.exit(f"motion_controlnet: {error}")


if __name__ == "__main__":
    main()

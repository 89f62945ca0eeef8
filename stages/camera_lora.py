"""The camera LoRA on camera-only data (Eq. 1): `python -m stages.camera_lora`.

theta_cam = theta_0 + dtheta_cam: motion ControlNet and foundation stay as they are.
"""

import sys
from pathlib import Path

from models.foundation import Foundation, FoundationError
from models.lora import add_lora, save_lora
from models.networks import MotionControlNet
from stages import motion_controlnet
from stages.contracts import ContractError
from stages.params import Params, ParamsError, load_params
from stages.tracking import StageRun, stage_run
from stages.training import FOUNDATION, Job, TrainingItems, train

OUTPUT = Path("artifacts/camera_lora")


def run(params: Params, tracker: StageRun) -> None:
    settings = params.camera_lora
    network = MotionControlNet.from_pretrained(motion_controlnet.OUTPUT)
    parameters = add_lora(network, "camera", settings.rank, settings.seed)
    items = TrainingItems("camera", params, settings, lambda item: "sparse")
    job = Job("camera_lora", settings, settings.steps, network, parameters, items)
    train(job, Foundation.load(FOUNDATION), OUTPUT, tracker)
    save_lora(network, "camera", OUTPUT)


def main() -> None:
    try:
        params = load_params()
        with stage_run("camera_lora", params) as tracker:
            run(params, tracker)
            tracker.artifact(OUTPUT / "loss.csv")
            tracker.weights(OUTPUT)
    except (ParamsError, ContractError, FoundationError) as error:
        sys.exit(f"camera_lora: {error}")


if __name__ == "__main__":
    main()

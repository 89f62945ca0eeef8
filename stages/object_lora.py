"""The object LoRA on mixed data, with the camera LoRA loaded and frozen (Eq. 2 to 4): `python -m stages.object_lora`.

theta_mixed = theta_0 + sg[dtheta_cam] + dtheta_obj, optimised for L_mixed + weight * L_ortho.
"""

from pathlib import Path

from torch import Tensor

from models.foundation import Foundation
from models.lora import add_lora, fold_lora, load_lora, save_lora
from models.networks import MotionControlNet
from models.orthogonal_loss import orthogonal_loss
from stages import camera_lora, motion_controlnet
from stages.params import Params
from stages.training import FOUNDATION, Job, Listener, run_training_stage, train
from stages.training_items import TrainingItems
from stages.validation import Validation

OUTPUT = Path("artifacts/object_lora")


def run(params: Params, tracker: Listener) -> None:
    settings = params.object_lora
    network = MotionControlNet.from_pretrained(motion_controlnet.OUTPUT)
    load_lora(network, "camera", camera_lora.OUTPUT)
    parameters = add_lora(network, "object", settings.rank, settings.seed)
    fold_lora(network, "camera")
    items = TrainingItems("mixed", params, settings, lambda item: "sparse")

    def extra_loss() -> dict[str, Tensor]:
        if settings.orthogonal_loss == "off":
            return {}
        return {"orthogonal_loss": settings.orthogonal_weight * orthogonal_loss(network, settings.orthogonal_loss)}

    job = Job(
        "object_lora",
        settings,
        settings.steps,
        network,
        parameters,
        items,
        Validation("mixed", params, settings),
        save=lambda: save_lora(network, "object", OUTPUT),
        extra_loss=extra_loss,
    )
    train(job, Foundation.load(FOUNDATION), OUTPUT, tracker)


if __name__ == "__main__":
    run_training_stage("object_lora", OUTPUT, run)

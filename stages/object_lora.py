"""The object LoRA on mixed data, with the camera LoRA loaded and frozen (Eq. 2 to 4): `python -m stages.object_lora`.

theta_mixed = theta_0 + sg[dtheta_cam] + dtheta_obj, optimised for L_mixed + weight * L_ortho. Videos are sampled with
theta_obj = theta_0 + dtheta_obj, so validation measures theta_obj.
"""

from torch import Tensor

from models.lora.orthogonal_loss import orthogonal_loss
from models.lora.sets import add_lora, fold_lora, load_lora, save_lora, unfolded
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from stages.data.paths import CAMERA_LORA, FOUNDATION, MOTION_CONTROLNET, OBJECT_LORA
from stages.params import Params
from stages.train.checkpoint import shaping
from stages.train.items import TrainingItems
from stages.train.launch import run_training_stage
from stages.train.loop import Job, Listener, train
from stages.train.validation import Validation


def run(params: Params, tracker: Listener) -> None:
    settings = params.object_lora
    network = MotionControlNet.from_pretrained(MOTION_CONTROLNET)
    load_lora(network, "camera", CAMERA_LORA)
    parameters = add_lora(network, "object", settings.rank, settings.seed)
    theta_0 = fold_lora(network, "camera")
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
        Validation("mixed", params, settings, "object"),
        save=lambda: save_lora(network, "object", OBJECT_LORA),
        shaped_by=shaping(run, "mixed"),
        extra_loss=extra_loss,
        as_sampled=lambda: unfolded(network, "object", theta_0),
    )
    train(job, Foundation.load(FOUNDATION), OBJECT_LORA, tracker)


if __name__ == "__main__":
    run_training_stage("object_lora", OBJECT_LORA, run)

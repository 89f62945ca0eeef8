"""The orthogonal loss of Eq. 4, which keeps camera LoRA and object LoRA apart, in two forms (see `layer_loss`)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.lora.sets import lora_layers
from models.networks.networks import MotionControlNet

Form = Literal["identity", "orthogonal"]


def orthogonal_loss(network: MotionControlNet, form: Form) -> Tensor:
    """Mean over all LoRA layers i of `layer_loss`; W_i is `lora_A` of the camera and of the object LoRA.

    `lora_A` is used and not the product B A: the product is zero at the start, so its loss would be zero too.
    """
    losses = [
        layer_loss(layer.lora_A["camera"].weight.detach(), layer.lora_A["object"].weight, form)
        for layer in lora_layers(network)
    ]
    return torch.stack(losses).mean()


def layer_loss(camera: Tensor, obj: Tensor, form: Form) -> Tensor:
    """|| target - W_cam W_obj^T ||^2 / r of Eq. 4, with rows normalised.

    Args:
        camera: (r, in) or, for convolutions, (r, in, k, k), which is flattened to r x (in k k).
        obj: the same; ranks may differ.
        form: `identity` as printed (target I; zero when matching rows are aligned), `orthogonal` (target 0).
    """
    product = F.normalize(camera.flatten(1), dim=1) @ F.normalize(obj.flatten(1), dim=1).T
    if form == "identity":
        product = torch.eye(*product.shape, device=product.device, dtype=product.dtype) - product
    return product.square().sum() / len(product)

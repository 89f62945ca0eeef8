"""Switching the motion ControlNet between theta_0, theta_cam and theta_obj (Sec 2.4) for sampling."""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from torch import Tensor

from models.branches import LORAS, Lora
from models.lora import lora_layers
from models.networks import MotionControlNet


def loaded_loras(network: MotionControlNet) -> tuple[Lora, ...]:
    """Names of the LoRAs that the network holds."""
    return tuple(name for name in LORAS if name in getattr(network, "peft_config", {}))


def use_lora(network: MotionControlNet, name: Lora | None) -> None:
    """Let one LoRA act alone, beside the weights, or none: theta_0. Freezes the LoRAs.

    Raises:
        ValueError: the LoRA is not loaded.
    """
    if name is None:
        for layer in lora_layers(network):
            layer.enable_adapters(False)
        return
    if name not in loaded_loras(network):
        raise ValueError(f"LoRA {name!r} is not loaded; loaded: {', '.join(loaded_loras(network)) or 'none'}")
    for layer in lora_layers(network):
        layer.enable_adapters(True)
        layer.set_adapter(name, inference_mode=True)


@contextmanager
def fused_loras(network: MotionControlNet, names: Collection[Lora | None]) -> Iterator[Callable[[Lora | None], None]]:
    """Fuse each of the LoRAs into weights of its own, and give a switch between them and theta_0 that costs nothing.

    Holds one more copy of the adapted weights for each LoRA while it lasts. Afterwards the weights are what they were,
    bit for bit, and no LoRA acts.
    """
    layers = lora_layers(network)
    plain = [layer.get_base_layer().weight.data for layer in layers]
    weights: dict[Lora | None, list[Tensor]] = {None: plain}
    for name in names:
        if name is not None:
            fused = zip(plain, layers, strict=True)
            weights[name] = [weight + layer.get_delta_weight(name).to(weight.dtype) for weight, layer in fused]

    def switch(name: Lora | None) -> None:
        for layer, weight in zip(layers, weights[name], strict=True):
            layer.get_base_layer().weight.data = weight

    use_lora(network, None)
    try:
        yield switch
    finally:
        switch(None)


def without_loras(network: MotionControlNet) -> MotionControlNet:
    """theta_0 as a network of its own, for saving; the network itself if it holds no LoRA."""
    if not loaded_loras(network):
        return network
    bare = copy.deepcopy(network)
    bare.unload_lora()
    return bare

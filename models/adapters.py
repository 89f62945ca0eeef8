"""Switching the motion ControlNet between theta_0, theta_cam and theta_obj (Sec 2.4) for sampling."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer

from models.branches import LORAS, Lora
from models.networks import MotionControlNet


def loaded_loras(network: MotionControlNet) -> tuple[Lora, ...]:
    """Names of the LoRAs that the network holds."""
    return tuple(name for name in LORAS if name in getattr(network, "peft_config", {}))


def use_lora(network: MotionControlNet, name: Lora | None) -> None:
    """Let one LoRA act alone, or none: theta_0. Freezes the LoRAs.

    Raises:
        ValueError: the LoRA is not loaded.
    """
    if name is None:
        for layer in _layers(network):
            layer.enable_adapters(False)
        return
    if name not in loaded_loras(network):
        raise ValueError(f"LoRA {name!r} is not loaded; loaded: {', '.join(loaded_loras(network)) or 'none'}")
    for layer in _layers(network):
        layer.enable_adapters(True)
        layer.set_adapter(name, inference_mode=True)


@contextmanager
def merged_lora(network: MotionControlNet, name: Lora) -> Iterator[None]:
    """Add one LoRA into the weights, so that it costs nothing; afterwards the old weights are back, bit for bit."""
    use_lora(network, name)
    layers = list(_layers(network))
    weights = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer in layers:
            layer.merge(safe_merge=True, adapter_names=[name])
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()


def without_loras(network: MotionControlNet) -> MotionControlNet:
    """theta_0 as a network of its own, for saving; the network itself if it holds no LoRA."""
    if not loaded_loras(network):
        return network
    bare = copy.deepcopy(network)
    bare.unload_lora()
    return bare


def _layers(network: MotionControlNet) -> Iterator[BaseTunerLayer]:
    return (module for module in network.modules() if isinstance(module, BaseTunerLayer))

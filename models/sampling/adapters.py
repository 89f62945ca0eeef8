"""Switching the motion ControlNet between theta_0, theta_cam and theta_obj (Sec 2.4) for sampling."""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from models.lora.sets import Switch, lora_layers, put_weights, swapped
from models.modes import LORAS, Lora
from models.networks.networks import MotionControlNet

Network = TypeVar("Network", bound=nn.Module)


def loaded_loras(network: MotionControlNet) -> tuple[Lora, ...]:
    """Names of the LoRAs that the network holds."""
    return tuple(name for name in LORAS if name in getattr(network, "peft_config", {}))


def use_lora(network: MotionControlNet, name: Lora | None) -> None:
    """Make one LoRA active, or none (theta_0). All LoRAs are frozen.

    Raises:
        ValueError: the LoRA is not loaded.
    """
    if name is None:
        silence(network)
        return
    if name not in loaded_loras(network):
        raise ValueError(f"LoRA {name!r} is not loaded; loaded: {', '.join(loaded_loras(network)) or 'none'}")
    for layer in lora_layers(network):
        layer.enable_adapters(True)
        layer.set_adapter(name, inference_mode=True)


@contextmanager
def fused_loras(network: MotionControlNet, names: Collection[Lora | None]) -> Iterator[Switch]:
    """Fuse each LoRA into a copy of the weights, and yield a switch between these copies and theta_0.

    The switch takes no time. Each LoRA takes memory for one copy of the adapted weights. Afterwards the weights are the
    same as before, bit for bit, and no LoRA is active.
    """
    layers = lora_layers(network)
    weights: dict[Lora | None, list[Tensor]] = {None: fused_weights(layers, {})}
    weights |= {name: fused_weights(layers, {name: 1.0}) for name in names if name is not None}
    silence(network)
    with swapped(layers, weights[None]):
        yield lambda name: put_weights(layers, weights[name])


def fused_weights(layers: Sequence[LoraLayer], scales: Mapping[str, float]) -> list[Tensor]:
    """Each layer's weight plus the named LoRAs' weights times their scales."""
    fused = []
    for layer in layers:
        weight = layer.get_base_layer().weight.data
        for name, scale in scales.items():
            if name in layer.lora_A:
                weight = weight + scale * layer.get_delta_weight(name).to(weight.dtype)
        fused.append(weight)
    return fused


def silence(network: nn.Module) -> None:
    """Make all LoRAs inactive."""
    for layer in lora_layers(network):
        layer.enable_adapters(False)


def without_loras(network: Network) -> Network:
    """A copy of the network without its LoRAs, for saving; the network itself if it has none."""
    if not lora_layers(network):
        return network
    bare: Any = copy.deepcopy(network)
    recurse_remove_peft_layers(bare)
    del bare.peft_config
    bare._hf_peft_config_loaded = False
    return bare

"""LoRA sets on the motion ControlNet (Sec 2.4, App C.1): W' = W + A B^T on linear and convolution layers.

theta_cam   = theta_0 + dtheta_cam                       `add_lora(network, "camera")`
theta_mixed = theta_0 + sg[dtheta_cam] + dtheta_obj      `train_only(network, "object")`, `fold_lora`  (Eq. 2)
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from models.lora.headers import order_header
from models.modes import Lora
from models.networks.networks import MotionControlNet
from models.networks.seeded import seeded
from models.networks.shared_files import let_others_read

Switch = Callable[[Lora | None], None]  # lets one LoRA of a network act, or none: theta_0
TARGETS = (
    "to_q to_k to_v to_out.0 conv proj proj_in proj_out time_emb_proj linear_1 linear_2 ff.net.2 conv_shortcut "
    "controlnet_cond_embedding conv_in conv1 conv2 controlnet_mid_block"
).split()


def lora_config(network: MotionControlNet, rank: int) -> LoraConfig:
    """The authors' choice: rank = alpha, Gaussian start, every attention, feed-forward and convolution layer."""
    outputs = [f"controlnet_down_blocks.{i}" for i in range(len(network.controlnet_down_blocks))]
    return LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=[*TARGETS, *outputs])


def add_lora(network: MotionControlNet, name: Lora, rank: int, seed: int) -> list[nn.Parameter]:
    """Add a LoRA that changes nothing yet (B = 0), and make it alone trainable. Other LoRAs stay loaded and frozen."""
    loaded = [known for known in getattr(network, "peft_config", {}) if known != name]
    with seeded(seed), beside_other_loras():
        network.add_adapter(lora_config(network, rank), adapter_name=name)
    network.set_adapters([*loaded, name])
    return train_only(network, name)


def train_only(network: MotionControlNet, name: Lora) -> list[nn.Parameter]:
    """Eq. 2: all loaded LoRAs act, the gradient stops at every weight but those of LoRA `name`."""
    trained = []
    for key, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in key and f".{name}." in key)
        if parameter.requires_grad:
            trained.append(parameter)
    return trained


@torch.no_grad()
def fold_lora(network: MotionControlNet, name: Lora) -> list[Tensor]:
    """Merge a frozen LoRA into the weights that it adapts (W + A B^T). The network is the same up to rounding.

    This makes training the other LoRA cheaper: the folded LoRA adds no computation. Its A and B stay in memory because
    Eq. 4 reads them, but they are inactive.

    Returns:
        The weights W as they were, in the order of `lora_layers`.
    """
    others = [known for known in network.active_adapters() if known != name]
    before = []
    for layer in lora_layers(network):
        weight = layer.get_base_layer().weight
        before.append(weight.detach().clone())
        weight += layer.get_delta_weight(name)
    network.set_adapters(others)
    return before


@contextmanager
def unfolded(network: MotionControlNet, name: Lora, weights: Sequence[Tensor]) -> Iterator[Switch]:
    """For a while, LoRA `name` acts on theta_0 alone, as it does when videos are sampled.

    Args:
        name: the LoRA in training.
        weights: of theta_0, from `fold_lora`; on any device.

    Yields:
        A switch between LoRA `name` and theta_0. Afterwards the network is what it was, bit for bit.
    """
    layers = lora_layers(network)

    def switch(lora: Lora | None) -> None:
        for layer in layers:
            layer.set_scale(name, 0.0 if lora is None else 1.0)

    with swapped(layers, weights):
        try:
            yield switch
        finally:
            switch(name)


@contextmanager
def swapped(layers: Sequence[LoraLayer], weights: Sequence[Tensor]) -> Iterator[None]:
    """Put weights, from any device, in place of the layers' own for a while."""
    own = [layer.get_base_layer().weight.data for layer in layers]
    put_weights(layers, [weight.to(mine.device) for weight, mine in zip(weights, own, strict=True)])
    try:
        yield
    finally:
        put_weights(layers, own)


def put_weights(layers: Sequence[LoraLayer], weights: Sequence[Tensor]) -> None:
    """Let the layers that LoRAs lie beside have these weights."""
    for layer, weight in zip(layers, weights, strict=True):
        layer.get_base_layer().weight.data = weight


def load_lora(network: MotionControlNet, name: Lora, folder: str | Path) -> None:
    """Read a LoRA folder that `save_lora` wrote."""
    with beside_other_loras():
        network.load_lora_adapter(str(folder), adapter_name=name, prefix=None, use_safetensors=True)


def save_lora(network: MotionControlNet, name: Lora, folder: str | Path) -> None:
    """Write a LoRA as a folder of its own; the same LoRA gives the same bytes."""
    network.save_lora_adapter(folder, adapter_name=name)
    for file in Path(folder).glob("*.safetensors"):
        order_header(file)
    let_others_read(folder)


@contextmanager
def beside_other_loras() -> Iterator[None]:
    """Keep peft from warning that the network carries a LoRA already: several at once are meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        yield


def lora_layers(network: nn.Module) -> list[LoraLayer]:
    """Every layer that carries LoRA weights, in the network's order."""
    return [module for module in network.modules() if isinstance(module, LoraLayer)]

"""Community weights on the base, as AnimateDiff allows (Sec 3.2): a checkpoint in one file, and LoRAs with weights.

They change the look of the video: the UNet's image layers, the text encoder and the VAE. The motion modules and both
ControlNets stay as they are, so strokes keep their effect.
"""

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from torch import Tensor, nn
from transformers import CLIPTextModel

from models.errors import LONGEST_NAME, SHOWN_PROBLEMS, UserError
from models.lora.sets import lora_layers, swapped
from models.networks.codec import Codec
from models.networks.networks import MotionUNet
from models.sampling.adapters import fused_weights, silence
from models.sampling.lora_files import PersonalisationError, lora_pairs, read_community_file, read_plain_lora

logger = logging.getLogger(__name__)

LONGEST_REASON = 300  # characters of a library's error that are shown
TEXT_LAYERS = {  # names of attention layers in diffusers' older LoRA files, and where the matrices belong
    "to_q_lora": "q_proj.lora_linear_layer",
    "to_k_lora": "k_proj.lora_linear_layer",
    "to_v_lora": "v_proj.lora_linear_layer",
    "to_out_lora": "out_proj.lora_linear_layer",
}
LDM_UNET, LDM_TEXT = "model.diffusion_model.", "cond_stage_model.transformer."


@torch.no_grad()
def load_checkpoint(path: Path, unet: MotionUNet, text_encoder: CLIPTextModel | None, vae: Codec | None) -> None:
    """Put the weights of a Stable Diffusion checkpoint in one file in place of the networks' own.

    All of the file is checked before the first weight is replaced.

    Raises:
        PersonalisationError: the file is missing, not in the original Stable Diffusion layout, or of other sizes.
    """
    state, _ = read_community_file(path)
    if not any(key.startswith(LDM_UNET) for key in state):
        raise PersonalisationError(f"{path}: no {LDM_UNET}*; expected a Stable Diffusion 1.5 checkpoint in one file")
    try:
        replaced = _replacements(path, unet, convert_ldm_unet_checkpoint(state, unet.config), leave="motion_modules.")
        if text_encoder is not None and any(key.startswith(LDM_TEXT) for key in state):
            known = _weights(text_encoder)
            text = {_text_key(key, known): value for key, value in convert_ldm_clip_checkpoint(state).items()}
            replaced += _replacements(path, text_encoder, text)
        if isinstance(vae, AutoencoderKL) and any(key.startswith("first_stage_model.") for key in state):
            replaced += _replacements(path, vae, convert_ldm_vae_checkpoint(state, vae.config))
    except (RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise PersonalisationError(f"{path}: does not fit this model: {_one_line(error)}") from None
    for own, value in replaced:
        own.copy_(value)


def load_community_lora(path: Path, name: str, unet: MotionUNet, text_encoder: CLIPTextModel | None) -> None:
    """Add a LoRA, LoHa or LoKr with the keys of kohya's scripts or of diffusers.

    It is active only inside `personal_loras`.
    Afterwards the matrices of every layer are compared with those of the file. A file that is refused leaves the
    networks as they were. Layers of the file that this model does not have are named in a warning.

    Raises:
        PersonalisationError: the file is missing, of another kind, or does not fit this model; or the name is taken.
    """
    networks = [network for network in (unet, text_encoder) if network is not None]
    if any(name in getattr(network, "peft_config", {}) for network in networks):
        raise PersonalisationError(f"{path}: a LoRA named {name} is loaded already; give another name, NAME:FILE")
    plain = read_plain_lora(path, _shapes(unet, text_encoder))
    bare = [network for network in networks if not lora_layers(network)]
    try:
        state, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(dict(plain), unet_config=unet.config)
        of_unet = any(key.startswith("unet.") for key in state)
        of_text = text_encoder is not None and any(key.startswith("text_encoder.") for key in state)
        if not of_unet and not of_text:
            raise PersonalisationError(f"{path}: no LoRA weights for the UNet or the text encoder")
        if of_unet:
            StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, None, unet, adapter_name=name)
        if of_text:
            state = _named_text_layers(state)
            _check_text_widths(path, state, text_encoder)
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(
                state, None, text_encoder, prefix="text_encoder", adapter_name=name
            )
        unused = _checked(path, name, plain, networks)
    except BaseException as error:
        for network in networks:
            _remove(network, name, network in bare)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise PersonalisationError(f"{path}: does not fit this model: {_one_line(error)}") from None
    if unused:
        total = len(lora_pairs(plain))
        logger.warning(
            "%s: %d of %d LoRA layers are used; this model has none such as %s",
            path,
            total - len(unused),
            total,
            ", ".join(unused[:SHOWN_PROBLEMS]),
        )
    for network in networks:
        silence(network)
        network.requires_grad_(False)


@contextmanager
def personal_loras(
    unet: MotionUNet, text_encoder: CLIPTextModel | None, weights: Mapping[str, float]
) -> Iterator[None]:
    """Fuse LoRAs, each times its weight, into UNet and text encoder. Afterwards the weights are the same as before.

    Raises:
        PersonalisationError: a name is not loaded.
    """
    networks = [network for network in (unet, text_encoder) if network is not None]
    loaded = {name for network in networks for name in getattr(network, "peft_config", {})}
    if unknown := sorted(set(weights) - loaded):
        known = ", ".join(sorted(loaded)) or "none"
        named = ", ".join(name[:LONGEST_NAME] for name in unknown[:SHOWN_PROBLEMS])
        raise PersonalisationError(f"personal_loras: {named} is not loaded; loaded: {known}")
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise PersonalisationError(f"personal_loras: {name}: the weight must be a finite number, got {weight}")
    with ExitStack() as stack:
        for network in networks:
            layers = lora_layers(network)
            stack.enter_context(swapped(layers, fused_weights(layers, weights)))
        yield


def _shapes(unet: MotionUNet, text_encoder: CLIPTextModel | None) -> dict[str, torch.Size]:
    """Shapes of the layers' weights, by the names of the layers in files of kohya's and of diffusers' layout."""
    text = {} if text_encoder is None else _weights(text_encoder)
    named = {("unet", "lora_unet", key): value for key, value in _weights(unet).items()}
    named |= {
        ("text_encoder", "lora_te", f"text_model.{key.removeprefix('text_model.')}"): value
        for key, value in text.items()
    }
    shapes = {}
    for (theirs, kohyas, key), value in named.items():
        layer, is_weight, _ = key.rpartition(".weight")
        if is_weight:
            shapes[f"{theirs}.{layer}"] = shapes[f"{kohyas}_{layer.replace('.', '_')}"] = value.shape
    return shapes


def _named_text_layers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The LoRA with the text encoder's own names of layers. diffusers renames them only if the last layer is there."""
    renamed = {}
    for key, value in state.items():
        for old, own in TEXT_LAYERS.items():
            key = key.replace(f".{old}.", f".{own}.")
        renamed[key] = value
    return renamed


def _check_text_widths(path: Path, state: Mapping[str, Tensor], text_encoder: CLIPTextModel | None) -> None:
    """Raises PersonalisationError for a LoRA of another text encoder; transformers would not say which layer."""
    modules = text_encoder.named_modules() if text_encoder is not None else ()
    layers = {name: module for name, module in modules if isinstance(module, nn.Linear)}
    for key, value in state.items():
        name, is_down, _ = key.removeprefix("text_encoder.").partition(".lora_linear_layer.down")
        layer = layers.get(name) or layers.get(name.removeprefix("text_model."))
        if is_down and layer is not None and value.shape[1] != layer.in_features:
            raise PersonalisationError(
                f"{path}: does not fit this model: {name} is {value.shape[1]} wide, here it is {layer.in_features}"
            )


def _checked(path: Path, name: str, plain: Mapping[str, Tensor], networks: Sequence[nn.Module]) -> list[str]:
    """Compare the loaded matrices with the file's, give each layer the scale 1, and return the layers not used.

    Raises:
        PersonalisationError: nothing was used, or a layer holds other matrices than those of one layer of the file.
    """
    left = lora_pairs(plain)
    layers: list[Any] = [layer for network in networks for layer in lora_layers(network) if name in layer.lora_A]
    for layer in layers:
        loaded = layer.lora_A[name].weight, layer.lora_B[name].weight
        layer.scaling[name] = 1.0
        found = next((key for key, pair in left.items() if all(map(_same, loaded, pair))), None)
        if found is None:
            raise PersonalisationError(
                f"{path}: a layer of {tuple(loaded[1].shape)} was not loaded as it is in the file"
            )
        del left[found]
    if len(left) == len(lora_pairs(plain)):
        raise PersonalisationError(f"{path}: none of its layers is in this model, such as {next(iter(left), 'none')}")
    return list(left)


def _same(loaded: Tensor, given: Tensor) -> bool:
    """Whether a matrix is that of the file, which may have further sides of 1 and another precision."""
    return loaded.numel() == given.numel() and torch.equal(loaded.flatten(), given.to(loaded).flatten())


def _remove(network: Any, name: str, bare: bool) -> None:
    """Take a LoRA off, whole or half loaded; a network that was `bare` before loses its LoRA layers, too."""
    if bare:
        recurse_remove_peft_layers(network)
        if hasattr(network, "peft_config"):
            del network.peft_config
        network._hf_peft_config_loaded = False
        return
    for layer in lora_layers(network):
        if name in layer.lora_A:
            layer.delete_adapter(name)
    network.peft_config.pop(name, None)
    silence(network)


def _replacements(
    path: Path, network: nn.Module, state: Mapping[str, Tensor], leave: str | None = None
) -> list[tuple[Tensor, Tensor]]:
    """The network's own weights, but for keys that contain `leave`, each with that of the state."""
    own = {key: value for key, value in _weights(network).items() if leave is None or leave not in key}
    wrong = [key for key in sorted(own) if key not in state or state[key].shape != own[key].shape]
    if wrong:
        raise PersonalisationError(
            f"{path}: {len(wrong)} of {len(own)} weights of {type(network).__name__} are missing or of another size, "
            f"such as {wrong[0]}; expected a checkpoint of this base's architecture"
        )
    return [(value, state[key]) for key, value in own.items()]


def _one_line(error: Exception) -> str:
    """The error's message on one line, with layer and sizes, which PyTorch puts on the second."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, LONGEST_REASON)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's state dict, as if it carried no LoRA."""
    return {k.replace(".base_layer.", "."): value for k, value in network.state_dict().items() if ".lora_" not in k}


def _text_key(key: str, known: Collection[str]) -> str:
    """The text encoder's own key, with or without the prefix that its class puts in front."""
    bare = key.removeprefix("text_model.")
    return f"text_model.{bare}" if f"text_model.{bare}" in known else bare

"""Community weights on the base, as AnimateDiff allows (Sec 3.2): a checkpoint in one file, and LoRAs with weights.

They change the look of the video: the UNet's image layers, the text encoder and the VAE. The motion modules and both
ControlNets stay as they are, so strokes keep their effect.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from models.errors import LONGEST_NAME, SHOWN_PROBLEMS, UserError
from models.lora.sets import lora_layers, swapped
from models.networks.codec import Codec
from models.networks.networks import MotionUNet
from models.sampling.adapters import fused_weights, silence

LDM_UNET, LDM_TEXT = "model.diffusion_model.", "cond_stage_model.transformer."


class PersonalisationError(UserError):
    """A community file that cannot be used; the message names it and says why."""


@torch.no_grad()
def load_checkpoint(path: Path, unet: MotionUNet, text_encoder: CLIPTextModel | None, vae: Codec | None) -> None:
    """Put the weights of a Stable Diffusion checkpoint in one `.safetensors` file in place of the networks' own.

    Raises:
        PersonalisationError: the file is missing, not in the original Stable Diffusion layout, or of other sizes.
    """
    state = _read(path)
    if not any(key.startswith(LDM_UNET) for key in state):
        raise PersonalisationError(f"{path}: no {LDM_UNET}*; expected a Stable Diffusion 1.5 checkpoint in one file")
    _replace(path, unet, convert_ldm_unet_checkpoint(state, unet.config), leave="motion_modules.")
    if text_encoder is not None and any(key.startswith(LDM_TEXT) for key in state):
        known = _weights(text_encoder)
        text = {_text_key(key, known): value for key, value in convert_ldm_clip_checkpoint(state).items()}
        _replace(path, text_encoder, text)
    if isinstance(vae, AutoencoderKL) and any(key.startswith("first_stage_model.") for key in state):
        _replace(path, vae, convert_ldm_vae_checkpoint(state, vae.config))


def load_community_lora(path: Path, name: str, unet: MotionUNet, text_encoder: CLIPTextModel | None) -> None:
    """Add a LoRA with the keys of kohya's scripts or of diffusers. It is active only inside `personal_loras`.

    Raises:
        PersonalisationError: the file is missing, no LoRA, or does not fit the UNet; or the name is taken.
    """
    if name in getattr(unet, "peft_config", {}):
        raise PersonalisationError(f"{path}: a LoRA named {name} is loaded already; give another name")
    try:
        state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(_read(path), unet_config=unet.config)
        of_unet = any(key.startswith("unet.") for key in state)
        of_text = text_encoder is not None and any(key.startswith("text_encoder.") for key in state)
        if not of_unet and not of_text:
            raise PersonalisationError(f"{path}: no LoRA weights for the UNet or the text encoder")
        if of_unet:
            StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, alphas, unet, adapter_name=name)
        if of_text:
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(
                state, alphas, text_encoder, prefix="text_encoder", adapter_name=name
            )
    except (RuntimeError, KeyError, IndexError) as error:
        raise PersonalisationError(f"{path}: does not fit this model: {str(error).splitlines()[0]}") from None
    for network in (unet, text_encoder):
        if network is not None:
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
    with ExitStack() as stack:
        for network in networks:
            layers = lora_layers(network)
            stack.enter_context(swapped(layers, fused_weights(layers, weights)))
        yield


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise PersonalisationError(f"{path}: only .safetensors files are read, others could run code")
    try:
        return load_file(path)
    except FileNotFoundError:
        raise PersonalisationError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise PersonalisationError(f"{path}: not readable: {error}") from None


def _replace(path: Path, network: nn.Module, state: Mapping[str, Tensor], leave: str | None = None) -> None:
    """Copy the state into the network's own weights, except for keys that contain `leave`."""
    own = {key: value for key, value in _weights(network).items() if leave is None or leave not in key}
    wrong = [key for key in sorted(own) if key not in state or state[key].shape != own[key].shape]
    if wrong:
        raise PersonalisationError(
            f"{path}: {len(wrong)} of {len(own)} weights of {type(network).__name__} are missing or of another size, "
            f"such as {wrong[0]}; expected a checkpoint of this base's architecture"
        )
    for key, value in own.items():
        value.copy_(state[key])


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's state dict, as if it carried no LoRA."""
    return {k.replace(".base_layer.", "."): value for k, value in network.state_dict().items() if ".lora_" not in k}


def _text_key(key: str, known: Collection[str]) -> str:
    """The text encoder's own key, with or without the prefix that its class puts in front."""
    bare = key.removeprefix("text_model.")
    return f"text_model.{bare}" if f"text_model.{bare}" in known else bare

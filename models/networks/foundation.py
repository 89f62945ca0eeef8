"""The frozen image-to-video base, as one folder in diffusers' layout.

    unet/ image_controlnet/ vae/ text_encoder/ tokenizer/ scheduler/ latent_space.json

The folder's own files say how it works (prediction type, first-frame channels, codec). No code asks for the profile.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from models.errors import UserError
from models.networks.codec import Codec, LappedCodec, LinearCodec
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionUNet
from models.networks.shared_files import let_others_read

CODECS: dict[str, type[Codec]] = {
    "AutoencoderKL": AutoencoderKL,
    "LinearCodec": LinearCodec,
    "LappedCodec": LappedCodec,
}
SUBFOLDERS = ("unet", "image_controlnet", "vae", "text_encoder", "tokenizer", "scheduler")
OPTIONAL_PARTS = ("vae", "text_encoder", "tokenizer")  # not needed when the caller passes latents and text embeddings


class FoundationError(UserError):
    """A foundation folder that cannot be used; the message names the part and the remedy."""


class _Encoding:
    """Pictures and texts as a foundation's networks take them."""

    vae: Codec
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1 to scaled latents (B, C, h, w); the mode, not a sample.

        The pictures may be on any device. The latents are where the codec computes.
        """
        moments = self.vae.encode(images.to(computes_on(self.vae), self.vae.dtype) * 2 - 1).latent_dist
        return moments.mode() * self.vae.config.scaling_factor

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Prompts to embeddings (B, L, D)."""
        return embed_text(self.tokenizer, self.text_encoder, prompts)


@dataclass
class Encoders(_Encoding):
    """The codec and the text encoder of a foundation folder, without the networks of the diffusion model."""

    vae: Codec
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "Encoders":
        """Read both from a foundation folder; both compute in `dtype`."""
        folder = Path(folder)
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        encoders = cls(load_codec(folder / "vae", dtype), text_encoder, tokenizer)
        for network in (encoders.vae, encoders.text_encoder):
            network.requires_grad_(False).eval()
        return encoders

    def to(self, device: torch.device | str) -> "Encoders":
        self.vae.to(device)
        self.text_encoder.to(device)
        return self


@dataclass
class Foundation(_Encoding):
    """The networks around the motion ControlNet; all frozen, in eval mode."""

    unet: MotionUNet
    image_controlnet: ImageControlNet
    vae: Codec
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    latent_space: LatentSpace

    @classmethod
    def load(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, optional: Collection[str] = ()
    ) -> "Foundation":
        """Read a foundation folder; parts of `OPTIONAL_PARTS` that are `optional` and not there become None.

        Raises:
            FoundationError: a subfolder is missing.
        """
        folder = Path(folder)
        absent = {name for name in SUBFOLDERS if not (folder / name).is_dir()}
        missing = sorted(absent.difference(optional), key=SUBFOLDERS.index)
        if missing:
            raise FoundationError(f"{folder}: no {', '.join(missing)}; expected {', '.join(SUBFOLDERS)} in it")
        outside: dict[str, Any] = dict.fromkeys(OPTIONAL_PARTS)
        if "vae" not in absent:
            outside["vae"] = load_codec(folder / "vae", dtype)
        if "text_encoder" not in absent:
            outside["text_encoder"] = CLIPTextModel.from_pretrained(
                folder / "text_encoder", dtype=dtype, use_safetensors=True
            )
        if "tokenizer" not in absent:
            outside["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        foundation = cls(
            unet=MotionUNet.from_pretrained(folder / "unet", torch_dtype=dtype),
            image_controlnet=ImageControlNet.from_pretrained(folder / "image_controlnet", torch_dtype=dtype),
            **outside,
            scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
            latent_space=LatentSpace.load(folder),
        )
        for network in foundation.networks():
            network.requires_grad_(False).eval()
        return foundation

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in SUBFOLDERS:
            if (part := getattr(self, name)) is not None:
                part.save_pretrained(folder / name)
        self.latent_space.save(folder)
        let_others_read(folder)

    def networks(self) -> Iterator[nn.Module]:
        networks = (self.unet, self.image_controlnet, self.vae, self.text_encoder)
        yield from (network for network in networks if network is not None)

    def to(self, device: torch.device | str) -> "Foundation":
        for network in self.networks():
            network.to(device)
        return self

    @property
    def codec_factor(self) -> int:
        return codec_factor(self.vae)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, T, h, w) to frames (B, T, 3, H, W) in 0..1, one frame at a time in memory."""
        scaled = latents.to(computes_on(self.vae), self.vae.dtype) / self.vae.config.scaling_factor
        frames = [self.vae.decode(frame, return_dict=False)[0] for frame in scaled.unbind(2)]
        return ((torch.stack(frames, 1) + 1) / 2).clamp(0, 1)


def embed_text(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: list[str]) -> Tensor:
    """(B, L, D): last hidden state of the padded, truncated prompts."""
    ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return text_encoder(ids.to(computes_on(text_encoder))).last_hidden_state


def computes_on(network: Codec | CLIPTextModel) -> torch.device:
    """The device on which a network computes. The weights of an offloaded network lie elsewhere between its calls."""
    hook = getattr(network, "_hf_hook", None)  # of accelerate's offloading
    return network.device if hook is None else torch.device(hook.execution_device)


def codec_factor(vae: Codec) -> int:
    """How many pixels one latent pixel spans."""
    return (
        vae.config.patch
        if isinstance(vae, LinearCodec | LappedCodec)
        else 2 ** (len(vae.config.block_out_channels) - 1)
    )


def load_codec(folder: Path, dtype: torch.dtype = torch.float32) -> Codec:
    """Load a codec by the class that its config names."""
    name = json.loads((folder / "config.json").read_text()).get("_class_name", "AutoencoderKL")
    if name not in CODECS:
        raise FoundationError(f"{folder}/config.json: class {name!r}; use one of {', '.join(CODECS)}")
    return CODECS[name].from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)

"""The inputs of the networks, made from pictures, texts and strokes of a batch of videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from models.denoising.conditions import motion_condition, unshuffled_flow
from models.denoising.denoiser import image_condition, repeat_per_frame
from models.denoising.strokes import Strokes
from models.geometry import Size, cover_crop
from models.modes import Lora, Mode
from models.networks.codec import Codec
from models.networks.networks import MotionControlNet
from models.sampling.branches import Branch
from models.sampling.picture import as_seen
from models.strokes.stroke import stroke_tracks
from models.strokes.trajectories import parse_trajectories


@dataclass
class Inputs:
    """The inputs of B videos beside their noise.

    first (B, C, h, w); image, image_mask (B, C, T, h, w) and (B, 1, T, h, w), see `denoiser.image_condition`; texts: by
    prompt name (B * T, L, D); conditions: by strokes name (B, C', T, h, w).
    """

    first: Tensor
    image: Tensor
    image_mask: Tensor
    texts: Mapping[str, Tensor]
    conditions: Mapping[str, Tensor]


def fit_image(image: Image.Image, frame: Size) -> tuple[Tensor, str]:
    """A picture of any shape as the model's frame (1, 3, H, W) in 0..1, and what was cropped off."""
    upright = as_seen(image).image
    crop = cover_crop(upright.size, frame)
    pixels = torch.from_numpy(np.asarray(crop.image(upright), np.float32) / 255)
    return pixels.permute(2, 0, 1)[None], crop.describe()


def fit_images(images: Image.Image | Sequence[Image.Image], frame: Size) -> tuple[Tensor, str]:
    """Pictures of one size as the model's frames (K, 3, H, W) in 0..1, and what was cropped off each of them.

    Raises:
        ValueError: there is none, or their sizes differ.
    """
    given = [images] if isinstance(images, Image.Image) else list(images)
    if len({each.size for each in given}) != 1:
        raise ValueError("image: images of one size are needed, at least one")
    fitted = [fit_image(each, frame) for each in given]
    return torch.cat([pixels for pixels, _ in fitted]), fitted[0][1]


def drawn_strokes(trajectories: Any, mode: Mode, frame: Size, frames: int) -> dict[Lora, Strokes]:
    """Trajectories as tracks (1, T, N, 2) in the model's frame, by what they move.

    Raises:
        TrajectoryError: they cannot be read, or the mode needs strokes that are not there.
    """
    drawn = parse_trajectories(trajectories)
    chosen: dict[Lora, Any] = {"object": drawn.strokes_of(mode)}
    if mode == "both":
        chosen["camera"] = drawn.camera_strokes
    tracks = {kind: stroke_tracks(each, drawn.canvas, frame, frames) for kind, each in chosen.items()}
    return {kind: Strokes(*(torch.from_numpy(part)[None] for part in pair)) for kind, pair in tracks.items()}


def initial_noise(
    shape: tuple[int, ...],
    given: Tensor | None,
    generator: torch.Generator | list[torch.Generator] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Noise of a shape (S, C, T, h, w): drawn, unless it is given.

    Raises:
        ValueError: the given noise has another shape beside S.
    """
    if given is None:
        return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    if given.ndim != 5 or given.shape[1:] != shape[1:]:
        raise ValueError(f"latents: expected (S, {', '.join(map(str, shape[1:]))}), got {tuple(given.shape)}")
    return given


def make_inputs(
    images: Tensor,
    image_frames: Sequence[int],
    texts: Mapping[str, Tensor | None],
    strokes: Mapping[Lora, Strokes] | Tensor,
    branches: Sequence[Branch],
    network: MotionControlNet,
    vae: Codec | None,
    frames: int,
) -> Inputs:
    """The inputs that the branches of a sampling step need.

    Args:
        images: latents (B, C, K, h, w) of the frames `image_frames`, on the sampler's device and in its precision.
        texts: embeddings (B or 1, L, D) by prompt name, `text` and `null`.
        strokes, frames: see `ImageConductorPipeline.sample_latents`.

    Raises:
        ValueError: the image frames do not rise from 0, or strokes are missing or of the wrong kind.
    """
    first = images[:, :, 0]
    prompts = {branch.prompt for branch in branches}
    return Inputs(
        first,
        *image_condition(images, image_frames, frames),
        texts={
            name: repeat_per_frame(embeds.to(first).expand(len(first), -1, -1), frames)
            for name, embeds in texts.items()
            if embeds is not None and name in prompts
        },
        conditions={
            name: stroke_condition(name, strokes, first, network, vae)
            for name in {branch.strokes for branch in branches if branch.strokes}
        },
    )


def stroke_condition(
    name: str, strokes: Mapping[Lora, Strokes] | Tensor, first: Tensor, network: MotionControlNet, vae: Codec | None
) -> Tensor:
    """Condition (B, C, T, h, w) made of the `object` strokes, the `camera` strokes or `all`."""
    config = network.config
    if isinstance(strokes, Tensor):
        if list(config.condition) != ["flow"]:
            raise ValueError("flow_maps: give tracks instead, unless the network is conditioned on the flow map only")
        return unshuffled_flow(strokes.to(first), config.flow_scale, config.codec_factor)
    given = [each for kind, each in strokes.items() if name in (kind, "all")]
    if not given:
        raise ValueError(f"strokes: none for the {name}; give tracks of N = 0 for no stroke")
    joined = Strokes.joined(given).to(first.device)
    return motion_condition(config, vae, joined, first.float()).to(first.dtype)

"""Further options of a call of the pipeline, and its output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from models.modes import MODES
from models.sampling.settings import SamplingOptions

StepCallback = Callable[[Callable[[], Tensor]], object]


@dataclass
class ImageConductorOutput(BaseOutput):
    """frames: per video a list of PIL images; or (S, T, H, W, 3) in 0..1; or latents (S, C, T, h, w).

    cropped: what was cut off the user's image to fit the model's frame; empty if nothing was.
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor
    cropped: str = ""


class CallOptions(SamplingOptions, total=False):
    """Further arguments of the pipeline; all of them can be left out.

    image_latents: (1, C, h, w) or (1, C, K, h, w) in the VAE's scaled space, instead of `image`.
    prompt_embeds, negative_prompt_embeds: (1, L, D), instead of the texts.
    flow_maps: (1, 2, T, H, W) blurred, pixels per frame, instead of `trajectories`.
    latents: (S, C, T, h, w) initial noise, one for each video, instead of drawing it from `generator`.
    num_frames: T; if left out, the model's own.
    image_frames: the K frame numbers of the images, rising from 0.
    on_step: called after each step with a function that gives the latents as they are estimated by then. An exception
        that it raises ends the sampling and leaves the networks as they were.
    """

    image_latents: Tensor | None
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    flow_maps: Tensor | None
    latents: Tensor | None
    num_frames: int | None
    image_frames: Sequence[int]
    on_step: StepCallback | None


def divided(options: CallOptions) -> tuple[dict[str, Any], SamplingOptions]:
    """Divide the options of a call into inputs and sampling settings."""
    names = CallOptions.__annotations__.keys() - SamplingOptions.__annotations__.keys()
    given = {name: value for name, value in options.items() if name in names}
    sampling: Any = {name: value for name, value in options.items() if name not in names}
    return given, sampling


def check(mode: str, output_type: str, num_videos: int, has_vae: bool) -> None:
    """Raises ValueError, which names the argument, if one of them is unknown or out of range."""
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} is unknown; use {', '.join(MODES)}")
    if output_type not in ("pil", "np", "latent"):
        raise ValueError(f"output_type: {output_type!r} is unknown; use pil, np or latent")
    if output_type != "latent" and not has_vae:
        raise ValueError("output_type: this pipeline has no VAE; use latent")
    if num_videos < 1:
        raise ValueError(f"num_videos: must be at least 1, got {num_videos}")


def require_one(**arguments: Any) -> None:
    """Raises ValueError unless exactly one of the alternatives is given."""
    if sum(value is not None for value in arguments.values()) != 1:
        raise ValueError(f"{' or '.join(arguments)}: give one of them")

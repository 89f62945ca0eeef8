"""From a wish to an encoded video: the one place that the command line and the service share."""

import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from models.modes import Mode
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import SamplingOptions
from models.strokes.trajectories import Trajectories
from models.video.write import encode_gif, encode_mp4

ENCODERS = {"mp4": (encode_mp4, "video/mp4"), "gif": (encode_gif, "image/gif")}


@dataclass(frozen=True)
class Wish:
    """What a user asks for. Without a `seed` one is drawn. `options` are sampling settings other than the model's."""

    image: Image.Image
    trajectories: Trajectories
    mode: Mode = "object"
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    output_format: str = "mp4"
    options: SamplingOptions = field(default_factory=SamplingOptions)


class MadeVideo(NamedTuple):
    """data: the encoded file. cropped: what was cut off the image to fit the frame; empty if nothing was."""

    data: bytes
    mime_type: str
    num_frames: int
    fps: int
    width: int
    height: int
    seed: int
    cropped: str


def make_video(pipeline: ImageConductorPipeline, wish: Wish) -> MadeVideo:
    """Sample and encode. The same model, wish and seed give the same bytes.

    Raises:
        ValueError: the pipeline refuses an argument; the message names it.
    """
    seed = secrets.randbelow(2**31) if wish.seed is None else wish.seed
    result = pipeline(
        wish.image,
        wish.prompt,
        wish.trajectories,
        wish.mode,
        negative_prompt=wish.negative_prompt,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **wish.options,
    )
    frames = (np.asarray(result.frames[0]) * 255).round().astype(np.uint8)
    encode, mime_type = ENCODERS[wish.output_format]
    count, height, width = frames.shape[:3]
    fps = pipeline.settings.fps
    return MadeVideo(encode(frames, fps), mime_type, count, fps, width, height, seed, result.cropped)

"""From a wish to an encoded video: the one place that the command line and the service share."""

import io
import secrets
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.errors import UserError
from models.geometry import cover_crop
from models.modes import Mode
from models.pixels import to_uint8
from models.sampling.call import StepCallback
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import SamplingOptions
from models.serving.record import (
    FORMAT,
    RecordedPicture,
    RecordedWeights,
    VideoRecord,
    code_hash,
    embed,
    png_text,
    versions,
)
from models.strokes.formats.project import as_object
from models.strokes.trajectories import Trajectories
from models.video.write import encode_gif, encode_mp4

PREVIEW_QUALITY = 80  # JPEG, 1 to 95; higher is larger and closer
ENCODERS = {"mp4": (encode_mp4, "video/mp4"), "gif": (encode_gif, "image/gif")}


@dataclass(frozen=True)
class Wish:
    """What a user asks for. Without a `seed` one is drawn. `options` are sampling settings other than the model's.

    cropped, notes: what was done to the picture before, see `models.serving.image.FramedPicture`.
    keyframes: pictures of later frames, of the size of `image`, with their frame numbers.
    """

    image: Image.Image
    trajectories: Trajectories
    mode: Mode = "object"
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    output_format: str = "mp4"
    options: SamplingOptions = field(default_factory=SamplingOptions)
    cropped: str = ""
    notes: tuple[str, ...] = ()
    keyframes: tuple[tuple[int, Image.Image], ...] = ()

    def pictures(self, frames: int) -> tuple[list[Image.Image], list[int]]:
        """All pictures and their frame numbers, in order, for a video of so many frames.

        Raises:
            UserError: a frame number is given twice or not within the video, or a picture has another size.
        """
        placed = [(0, self.image), *sorted(self.keyframes, key=lambda each: each[0])]
        for (before, _), (frame, picture) in pairwise(placed):
            if not before < frame < frames:
                raise UserError(f"keyframes: different frames from 1 to {frames - 1} are needed, got {frame}")
            if picture.size != self.image.size:
                sizes = [f"{width}x{height}" for width, height in (picture.size, self.image.size)]
                raise UserError(f"keyframes: the picture of frame {frame} has {sizes[0]} pixels, the first {sizes[1]}")
        return [picture for _, picture in placed], [frame for frame, _ in placed]


class NotFinite(UserError):
    """A video whose pixels are not numbers."""


class MadeVideo(NamedTuple):
    """data: the encoded file. cropped: what was cut off the image to fit the frame; empty if nothing was.

    notes: what was done to picture, strokes or prompt that their owner may not expect, one sentence each.
    """

    data: bytes
    mime_type: str
    num_frames: int
    fps: int
    width: int
    height: int
    seed: int
    cropped: str
    notes: tuple[str, ...]


def make_video(pipeline: ImageConductorPipeline, wish: Wish, on_step: StepCallback | None = None) -> MadeVideo:
    """Sample and encode; the file carries its record. The same model, wish and seed give the same bytes.

    Args:
        on_step: see `CallOptions`; an exception that it raises ends the sampling.

    Raises:
        ValueError: the pipeline refuses an argument; the message names it.
        NotFinite: the frames are not numbers.
    """
    seed = secrets.randbelow(2**31) if wish.seed is None else wish.seed
    pictures, at = wish.pictures(pipeline.settings.frames)
    result = pipeline(
        pictures,
        wish.prompt,
        wish.trajectories,
        wish.mode,
        negative_prompt=wish.negative_prompt,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        image_frames=at,
        on_step=on_step,
        **wish.options,
    )
    pixels = np.asarray(result.frames[0])
    if not np.isfinite(pixels).all():
        raise NotFinite(
            "video: its pixels are not numbers; lower guidance_scale and the weights of personal_loras, or sample in "
            "float32. If that does not help, a weight of the model is not a number"
        )
    frames = (pixels * 255).round().astype(np.uint8)
    encode, mime_type = ENCODERS[wish.output_format]
    count, height, width = frames.shape[:3]
    fps = pipeline.settings.fps
    notes = (*wish.notes, *wish.trajectories.remarks(count), *cut_prompts(pipeline, wish))
    data = embed(encode(frames, fps), record_of(pipeline, wish, seed))
    return MadeVideo(data, mime_type, count, fps, width, height, seed, wish.cropped or result.cropped, notes)


def record_of(pipeline: ImageConductorPipeline, wish: Wish, seed: int) -> VideoRecord:
    """The record of a video that a pipeline makes of a wish and a seed."""
    settings, identity = pipeline.settings.changed(wish.options), pipeline.identity
    pictures, frames = wish.pictures(settings.frames)
    size = (settings.width, settings.height)
    drawn = wish.trajectories
    return VideoRecord(
        image_conductor=FORMAT,
        registered=identity.registered if identity else "",
        weights=identity.weights if identity else "",
        added=[RecordedWeights(**asdict(each)) for each in (identity.added if identity else ())],
        mode=wish.mode,
        seed=seed,
        prompt=wish.prompt,
        negative_prompt=wish.negative_prompt,
        settings=asdict(settings),
        strokes=as_object(drawn),
        pictures=[
            RecordedPicture(frame=frame, png=png_text(cover_crop(picture.size, size).image(picture)))
            for frame, picture in zip(frames, pictures, strict=True)
        ],
        output=wish.output_format,  # type: ignore[arg-type]
        precision=str(pipeline.unet.dtype).removeprefix("torch."),  # type: ignore[arg-type]
        device=pipeline._execution_device.type,
        tiling=bool(getattr(pipeline.vae, "use_tiling", False)),
        code=code_hash(),
        libraries=versions(),
    )


def cut_prompts(pipeline: ImageConductorPipeline, wish: Wish) -> tuple[str, ...]:
    """A note for each text that is longer than the text encoder reads."""
    if pipeline.tokenizer is None:
        return ()
    longest = pipeline.tokenizer.model_max_length
    lengths = {
        name: len(pipeline.tokenizer(getattr(wish, name), verbose=False).input_ids)
        for name in ("prompt", "negative_prompt")
    }
    return tuple(
        f"{name}: cut to its first {longest} of {length} tokens, start and end marks included"
        for name, length in lengths.items()
        if length > longest
    )


def preview(pipeline: ImageConductorPipeline, latents: Tensor) -> bytes:
    """The middle frame of latents (1, C, T, h, w) as a JPEG."""
    middle = latents.shape[2] // 2
    frame = to_uint8(pipeline.foundation.decode(latents[:, :, middle : middle + 1]))[0, 0]
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()

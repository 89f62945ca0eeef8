"""A video again from its record, by the same weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from models.disk import write_whole
from models.errors import UserError
from models.sampling.identity import file_hash
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import SamplingOptions
from models.serving.image import PixelBudget, decode_whole_image
from models.serving.load import load_model, note_added, place
from models.serving.make_video import Wish, make_video
from models.serving.record import GIF_OF_MP4, RecordError, VideoRecord, embed, read_record
from models.strokes.trajectories import parse_trajectories
from models.video.read import read_info, read_video
from models.video.write import encode_gif

MAX_PIXELS = 2**26  # of all pictures of a record
FRAME_FIELDS = ("width", "height", "frames", "fps")


class NotTheSameModel(UserError):
    """A model, or a file of community weights, that is not the one of the record."""


def remake(record: VideoRecord, model: str, added: Sequence[Path], output: Path) -> None:
    """Make the video of a record again, as the file `output`.

    Args:
        model: address of the model.
        added: files of the community weights that were loaded on top, in any order.

    Raises:
        UserError: model or files are not those of the record, or the record is damaged.
    """
    pipeline = _pipeline(record, model, added)
    try:
        video = make_video(pipeline, wish_of(record)).data
    except (TypeError, ValueError) as error:
        raise RecordError(f"the video's record is damaged: {error}") from None
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, video)
    if record.output == GIF_OF_MP4:
        write_whole(output, gif_of_mp4(output))


def gif_of_mp4(video: Path) -> bytes:
    """An MP4 as a GIF, with the same record if the MP4 carries one."""
    data = encode_gif(read_video(video)[0], read_info(video).fps)
    try:
        return embed(data, read_record(video).model_copy(update={"output": GIF_OF_MP4}))
    except RecordError:
        return data


def wish_of(record: VideoRecord) -> Wish:
    """What the sampler was asked for.

    Raises:
        UserError: strokes or pictures of the record are damaged.
    """
    options: Any = {name: record.settings[name] for name in SamplingOptions.__annotations__ if name in record.settings}
    budget = PixelBudget(MAX_PIXELS)
    (_, image), *later = [(each.frame, decode_whole_image(each.png, budget).image) for each in record.pictures]
    return Wish(
        image,
        parse_trajectories(record.strokes),
        record.mode,
        record.prompt,
        record.negative_prompt,
        record.seed,
        "mp4" if record.output == GIF_OF_MP4 else record.output,
        options,
        keyframes=tuple(later),
    )


def _pipeline(record: VideoRecord, model: str, added: Sequence[Path]) -> ImageConductorPipeline:
    pipeline = load_model(model, getattr(torch, record.precision))
    assert pipeline.identity is not None
    if record.weights and pipeline.identity.weights != record.weights:
        raise NotTheSameModel(
            f"--model: {model} has weights {pipeline.identity.weights}, the video was made by {record.weights}; "
            "name the model that has these"
        )
    other = [name for name in FRAME_FIELDS if getattr(pipeline.settings, name) != record.settings.get(name)]
    if other:
        raise NotTheSameModel(f"--model: {model}: {', '.join(other)} differ from the video's; name its own model")
    files = {file_hash(path): path for path in added}
    for each in record.added:
        what = f"LoRA {each.lora}" if each.lora else "checkpoint"
        if each.sha256 not in files:
            raise NotTheSameModel(f"--weights: the file of the {what} is needed, SHA-256 {each.sha256}")
        if each.lora:
            pipeline.load_personal_lora(files[each.sha256], each.lora)
        else:
            pipeline.load_checkpoint(files[each.sha256])
        note_added(pipeline, each.lora, files[each.sha256])
    pipeline.identity = pipeline.identity.as_registered(record.registered)
    if record.tiling:
        pipeline.vae.enable_tiling()
    pipeline.set_progress_bar_config(disable=True)
    return place(pipeline)

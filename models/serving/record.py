"""The record that a video carries: all that it takes to make the video again.

It is JSON without times and paths, in the comment of the MP4 or GIF. The first frame and later pictures are in it as
they reach the sampler, so that the record needs no other file than the model. Programs that re-encode a video drop it.
"""

import base64
import hashlib
import importlib.metadata
import io
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import av
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import UserError, field_problems
from models.modes import Mode

FORMAT = 1
MARK = "image_conductor"  # the record's first key, by which a comment is known
LIBRARIES = ("av", "diffusers", "numpy", "pillow", "torch", "transformers")
SHAPING = ("denoising", "lora", "networks", "sampling", "serving/make_video.py", "strokes", "video/write.py")
HASH = "^[0-9a-f]*$"
LONGEST_BLOCK = 255  # bytes of a part of a GIF's comment
GIF_OF_MP4 = "gif of mp4"  # a GIF of the decoded frames of an MP4, as the studio offers it

Output = Literal["mp4", "gif", "gif of mp4"]


class RecordError(UserError):
    """A video without a record, or with one that cannot be read."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecordedWeights(_Part):
    """See `models.sampling.identity.AddedWeights`."""

    lora: str
    sha256: str = Field(pattern=HASH)


class RecordedPicture(_Part):
    """frame: its number, from 0. png: base64, at the size of the model's frame."""

    frame: int
    png: str


class VideoRecord(_Part):
    """weights, registered, added: see `ModelIdentity`; weights is empty for a model that was put together in Python.

    settings: all fields of `Settings`. strokes: the project's format. precision, device: of the networks. tiling:
    whether the codec decoded in tiles. code: hash of the code that shapes a video. libraries: their versions.
    """

    image_conductor: int = Field(ge=1, le=FORMAT)
    registered: str = Field(pattern=r"^[^\x00-\x1f\x7f]*$")
    weights: str = Field(pattern=HASH)
    added: list[RecordedWeights]
    mode: Mode
    seed: int
    prompt: str
    negative_prompt: str
    settings: dict[str, Any]
    strokes: dict[str, Any]
    pictures: list[RecordedPicture] = Field(min_length=1)
    output: Output
    precision: Literal["float32", "bfloat16", "float16"]
    device: str = Field(pattern=r"^\w*$")
    tiling: bool
    code: str = Field(pattern=HASH)
    libraries: dict[str, str]

    def as_text(self) -> str:
        """The record as a comment: JSON in ASCII, in one order."""
        return json.dumps(self.model_dump(), separators=(",", ":"))


def embed(data: bytes, record: VideoRecord) -> bytes:
    """The file with the record as its comment. The frames are not encoded again."""
    text = record.as_text()
    return _in_mp4(data, text) if data[4:8] == b"ftyp" else _in_gif(data, text.encode())


def read_record(path: Path) -> VideoRecord:
    """The record that a file carries.

    Raises:
        RecordError: the file is no readable video, has no record, a damaged one, or one of a newer format.
    """
    try:
        comment = _comment(path)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except Exception:  # PyAV and Pillow raise errors of many kinds
        raise RecordError(f"{path}: not a readable MP4 or GIF") from None
    if not comment.startswith(f'{{"{MARK}":'):
        raise RecordError(
            f"{path}: carries no record of how it was made. Videos of `generate`, the service and the studio carry "
            "one, unless another program encoded them again. Take the file as it was made"
        )
    try:
        return VideoRecord.model_validate_json(comment)
    except ValidationError as error:
        problem = next(field_problems(error))
        raise RecordError(f"{path}: its record is damaged, or of a newer program: {problem}; update this one") from None


@cache
def code_hash() -> str:
    """A hash of the code that shapes a video, the same under whatever name the package is loaded."""
    package, name = Path(__file__).parents[1], __name__.partition(".")[0]
    files = [file for part in SHAPING for file in sorted((package / part).rglob("*.py")) or [package / part]]
    texts = [file.read_text(encoding="utf-8").replace(name, "models") for file in files]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def versions() -> dict[str, str]:
    """The versions of the libraries that shape a video."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _comment(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(6)
    if start.startswith(b"GIF8"):
        with Image.open(path) as picture:
            found = picture.info.get("comment", b"")
        return found.decode("ascii", "replace") if isinstance(found, bytes) else str(found)
    with av.open(path) as container:
        return container.metadata.get("comment", "")


def _in_mp4(data: bytes, text: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(buffer, "w", format="mp4") as target:
        target.metadata["comment"] = text
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return buffer.getvalue()


def _in_gif(data: bytes, text: bytes) -> bytes:
    """The comment as an extension before the trailer, in blocks."""
    parts = [text[start : start + LONGEST_BLOCK] for start in range(0, len(text), LONGEST_BLOCK)]
    blocks = b"".join(bytes([len(part)]) + part for part in parts)
    palette = 3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0
    head = 13 + palette
    return data[:head] + b"!\xfe" + blocks + b"\0" + data[head:]


def png_text(picture: Image.Image) -> str:
    """Base64 of a picture without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()

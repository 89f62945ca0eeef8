"""Trajectories of any format, chosen by content: files, requests, arrays. See `models.strokes.formats`."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from models.disk import write_whole
from models.errors import UserError
from models.geometry import Size
from models.strokes.formats.ati import ATIFormat, TorchContent
from models.strokes.formats.authors import AuthorsFormat
from models.strokes.formats.comfyui import ComfyUIFormat
from models.strokes.formats.common import MAX_FILE_BYTES, ArrayContent, TrajectoryFormat, parse_json, read_npz
from models.strokes.formats.cotracker import CoTrackerFormat
from models.strokes.formats.project import ProjectFormat
from models.strokes.formats.wan_move import WanMoveFormat
from models.strokes.stroke import AUTHORS_CANVAS, Trajectories, TrajectoryError

TRAJECTORY_FORMATS: tuple[TrajectoryFormat, ...] = (
    ProjectFormat(),
    ComfyUIFormat(),
    AuthorsFormat(),
    WanMoveFormat(),
    CoTrackerFormat(),
    ATIFormat(),
)
FORMAT_NAMES = tuple(each.name for each in TRAJECTORY_FORMATS)


class WrittenTrajectories(NamedTuple):
    """paths: of the files; format: its name; frames: positions of each stroke, None where drawn points were written;
    lost: what the format cannot hold, one sentence each."""

    paths: list[Path]
    format: str
    frames: int | None
    lost: list[str]


def load_trajectories(path: str | Path, canvas: Size = AUTHORS_CANVAS) -> Trajectories:
    """Read a trajectory file. `canvas` is that of formats that hold none.

    Raises:
        TrajectoryError: the file is missing or unreadable, or its content is wrong; the message names file and field.
    """
    path = Path(path)
    try:
        content = file_content(path)
        return _format_of(content).decode(content, canvas, path)
    except TrajectoryError as error:
        raise TrajectoryError(f"{path}: {error}") from None


def parse_trajectories(data: Any, canvas: Size = AUTHORS_CANVAS) -> Trajectories:
    """Check trajectories that are given as objects, lists or arrays. `canvas` is that of formats that hold none.

    Raises:
        TrajectoryError: a field is missing, unknown, empty, wrongly nested, not finite or too long, a stroke never
            comes onto its canvas, or times do not rise or do not match their points. Every message names the field.
    """
    return data if isinstance(data, Trajectories) else _format_of(data).decode(data, canvas)


def save_trajectories(
    drawn: Trajectories, path: Path, format_name: str | None = None, frames: int | None = None
) -> WrittenTrajectories:
    """Write strokes in a format, which is chosen by the file's suffix if it is not named.

    Args:
        frames: positions of each stroke in formats with one per frame. Left out: as many as the strokes were made for,
            or the usual number of the format.

    Raises:
        UserError: the format or the suffix is unknown.
    """
    chosen = _named_format(path, format_name)
    if path.suffix.lower() not in chosen.suffixes:
        raise UserError(f"{path}: a file of format {chosen.name} ends in {' or '.join(chosen.suffixes)}")
    count = frames or (None if chosen.fixed_frames else drawn.frames) or chosen.default_frames or 1
    files, lost = chosen.encode(drawn, path, count)
    if chosen.default_frames is not None and drawn.frames not in (None, count):
        lost = [*lost, f"the {drawn.frames} frames were resampled in time to {count}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        write_whole(file, data)
    return WrittenTrajectories(list(files), chosen.name, count if chosen.default_frames else None, lost)


def file_content(path: Path) -> Any:
    """The parsed content of a trajectory file, whatever its name ends in. Nothing in it is executed.

    Returns:
        what JSON holds, a numpy array (`.npy`), `ArrayContent` (`.npz`, `.safetensors`) or `TorchContent` (`.pth`).

    Raises:
        TrajectoryError: the file is missing, too large or of no known kind.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TrajectoryError(f"larger than {MAX_FILE_BYTES // 2**20} MB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise TrajectoryError("no such file") from None
    except OSError as error:
        raise TrajectoryError(f"not readable: {error.strerror}") from None
    if data.startswith(b"\x93NUMPY"):
        return _read("a numpy array", lambda: np.load(path, allow_pickle=False))
    if data.startswith(b"PK"):
        return TorchContent(data) if b"data.pkl" in data[:512] else ArrayContent(read_npz(path))
    if data.startswith(b"\x80"):
        return TorchContent(data)
    if len(data) > 8 and data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] < len(data):
        return ArrayContent(_read("safetensors", lambda: _tensors(data)))
    return _read("JSON", lambda: parse_json(data.decode("utf-8-sig")))


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    """Tensors of a `.safetensors` by name; types that numpy lacks, such as bfloat16, become float32."""
    try:
        return safetensors.numpy.load(data)
    except KeyError:
        from safetensors.torch import load

        found = load(data)
        return {name: (each.float() if each.is_floating_point() else each).numpy() for name, each in found.items()}


def _read(kind: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, ValueError, RecursionError, SafetensorError, EOFError) as error:
        raise TrajectoryError(f"not readable as {kind}: {error}") from None


def _format_of(content: Any) -> TrajectoryFormat:
    for each in TRAJECTORY_FORMATS:
        if each.recognises(content):
            return each
    raise TrajectoryError(
        f"trajectories: expected an object, a list of strokes or an array, got {type(content).__name__}"
    )


def _named_format(path: Path, name: str | None) -> TrajectoryFormat:
    for each in TRAJECTORY_FORMATS:
        if each.name == name or (name is None and path.suffix.lower() in each.suffixes):
            return each
    if name is not None:
        raise UserError(f"--format: {name!r} is unknown; use one of {', '.join(FORMAT_NAMES)}")
    suffixes = ", ".join(sorted({suffix for each in TRAJECTORY_FORMATS for suffix in each.suffixes}))
    raise UserError(f"{path}: name a format with --format, or let the file end in one of {suffixes}")

"""The interface of a format, and what formats with one position per frame share.

Such formats hold arrays: tracks (T, N, 2) in pixels, x right, y down, and visibility (T, N) bool.
"""

import ast
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from models.geometry import Size
from models.strokes.stroke import (
    MAX_POINTS,
    MAX_SIDE,
    MAX_STROKES,
    Stroke,
    Trajectories,
    TrajectoryError,
    interpolate,
    shown_at,
    touches,
)

MAX_FILE_BYTES = 256 * 2**20
MAX_PYTHON_TEXT = 32 * 2**20  # characters of a text with single quotes
CAMERA_LEFT_OUT = "the camera strokes were left out: the format has one kind of stroke"
CAMERA_AS_TRACKS = "the camera strokes were written as tracks: the format does not say that they move the camera"
CURVES_LOST = "points and times of the drawn curves became one position per frame"


class TrajectoryFormat(Protocol):
    """How one kind of file is recognised, read and written.

    name: of `--format`; suffixes: of its files, the first is the usual one; default_frames: positions of each stroke
    that are written where neither the strokes nor the user give a number; None: the format holds drawn points.
    fixed_frames: whether files always have `default_frames`.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    default_frames: ClassVar[int | None]
    fixed_frames: ClassVar[bool] = False

    def recognises(self, content: Any) -> bool:
        """Whether parsed content, see `models.strokes.trajectories.file_content`, is of this format."""

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes of parsed content. `canvas` is for formats that hold none; `path` leads to files beside it.

        Raises:
            TrajectoryError: the content is wrong; the message names the field.
        """

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """Files for strokes of `frames` positions, and what the format cannot hold, one sentence each."""


class ArrayContent(NamedTuple):
    """Named arrays of one file, `.npz` or `.safetensors`."""

    arrays: dict[str, np.ndarray]


def from_tracks(tracks: np.ndarray, visibility: np.ndarray | None, canvas: Size) -> Trajectories:
    """Strokes of tracks (T, N, 2) or (1, T, N, 2) in pixels of the canvas; visibility of that shape without the 2.

    Raises:
        TrajectoryError: a shape, a type or a number is wrong.
    """
    tracks = np.asarray(tracks)
    if tracks.ndim == 4 and len(tracks) > 1:
        raise TrajectoryError(f"trajectories: a batch of {len(tracks)} videos; give the tracks of one")
    tracks = tracks[0] if tracks.ndim == 4 and len(tracks) else tracks
    if tracks.ndim != 3 or tracks.shape[-1] != 2 or not np.issubdtype(tracks.dtype, np.number):
        raise TrajectoryError(f"trajectories: an array must be numbers of shape (T, N, 2), got {tracks.shape}")
    frames, count = tracks.shape[:2]
    if not 1 <= frames <= MAX_POINTS or not 1 <= count <= MAX_STROKES:
        raise TrajectoryError(
            f"trajectories: an array (T, N, 2) must have T in 1..{MAX_POINTS} and N in 1..{MAX_STROKES}, "
            f"got {tracks.shape}"
        )
    points = tracks.astype(np.float64)
    for bad, problem in (
        (~np.isfinite(points), "must be a finite number"),
        ((points < -MAX_SIDE) | (points > 2 * MAX_SIDE), f"must lie within {-MAX_SIDE} and {2 * MAX_SIDE}"),
    ):
        if bad.any():
            t, n, axis = np.argwhere(bad)[0]
            raise TrajectoryError(f"trajectories[{n}][{t}][{axis}]: {problem}")
    shown = _visibility(visibility, (frames, count))
    strokes = tuple(Stroke.even(points[:, n], shown[:, n]) for n in range(count))
    away = sum(not touches(stroke, canvas) for stroke in strokes)
    if away == count:
        raise TrajectoryError(
            f"trajectories: no track is ever visible on the canvas of {canvas[0]}x{canvas[1]} pixels; is it the canvas "
            "that they were made for?"
        )
    notes = (f"{away} of {count} tracks are never visible on the canvas and have no effect",) if away else ()
    return Trajectories(*canvas, strokes, frames=frames, notes=notes)


def to_tracks(strokes: Sequence[Stroke], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Tracks (T, N, 2) in canvas pixels and visibility (T, N); strokes of as many points keep them exactly.

    The tracks are float32, which the tools read. They are float64 where float32 would change the points of the strokes.
    """
    kept = [stroke.is_even and len(stroke.points) == frames for stroke in strokes]
    places = [s.points if keep else interpolate(s, frames) for s, keep in zip(strokes, kept, strict=True)]
    shown = [shown_at(stroke, frames) for stroke in strokes]
    exact = np.stack(places, axis=1)
    tracks = exact.astype(np.float32)
    return exact if all(kept) and not np.array_equal(tracks, exact) else tracks, np.stack(shown, axis=1)


def one_kind(drawn: Trajectories) -> tuple[Trajectories, list[str]]:
    """Strokes for a format that knows no camera strokes and no curves, and what is lost."""
    lost = []
    if drawn.camera_strokes:
        lost.append(CAMERA_LEFT_OUT if drawn.strokes else CAMERA_AS_TRACKS)
        drawn = replace(drawn, strokes=drawn.strokes or drawn.camera_strokes, camera_strokes=())
    if drawn.frames is None and any(len(stroke.points) > 1 for stroke in drawn.strokes):
        lost.append(CURVES_LOST)
    return drawn, lost


def canvas_lost(drawn: Trajectories) -> str:
    """The sentence for a format without a canvas."""
    return f"the canvas was left out: positions are pixels of a picture of {drawn.width}x{drawn.height}"


def parse_json(text: str) -> Any:
    """JSON; with single quotes, too, which ComfyUI's nodes write and read. Nothing is executed.

    Raises:
        ValueError, RecursionError: it is neither.
    """
    try:
        return json.loads(text)
    except ValueError:
        if not text.lstrip().startswith("[") or "'" not in text or len(text) > MAX_PYTHON_TEXT:
            raise
        if '"' not in text:
            return json.loads(text.replace("'", '"'))
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, MemoryError, TypeError):
        raise ValueError("neither JSON nor a list of Python") from None


def read_npz(file: Any) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` by name; nothing is unpickled.

    Raises:
        TrajectoryError: it is damaged, holds objects, or unpacks to more than `MAX_FILE_BYTES`.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            if sum(item.file_size for item in packed.infolist()) > MAX_FILE_BYTES:
                raise TrajectoryError(f"unpacks to more than {MAX_FILE_BYTES // 2**20} MB")
        if hasattr(file, "seek"):
            file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except TrajectoryError:
        raise
    except (ValueError, OSError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise TrajectoryError(f"not readable as .npz: {error}") from None


def _visibility(visibility: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """Visibility (T, N) bool; numbers above 0.5 are visible."""
    if visibility is None:
        return np.ones(shape, bool)
    given = np.asarray(visibility)
    if not (given.dtype == bool or np.issubdtype(given.dtype, np.number)):
        raise TrajectoryError(f"visibility: must be truth values or numbers, got {given.dtype}")
    if given.shape not in (shape, (1, *shape), (*shape, 1), (1, *shape, 1)):
        raise TrajectoryError(f"visibility: expected the shape {shape} of the tracks, got {given.shape}")
    given = given.reshape(shape)
    return given if given.dtype == bool else given > 0.5

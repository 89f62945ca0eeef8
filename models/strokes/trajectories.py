"""Drawn trajectories: the file format, its checks, and PCHIP interpolation to one position per frame.

Three formats are read:

- `{"width": W, "height": H, "trajectories": [[[x, y], ...], ...]}` in pixels of that canvas, with optional `times`
  (one number in 0..1 per point), and for the camera either `camera_trajectories` or a move by name,
  `"camera": {"move": "zoom_in", "amount": 40}`. A stroke of one point pins that place.
- The authors' bare list of strokes on their 384x256 canvas, where a stroke of one point moves by (+1, +1) in total.
- An array (T, N, 2), or the `.npy` file of one: N tracks of T positions each.

A stroke must start on its canvas and may leave it; the part that starts outside the model's frame has no effect.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.interpolate import PchipInterpolator

from models.errors import UserError, field_problems
from models.geometry import Size, cover_crop, inside_frame
from models.modes import Mode
from models.strokes.camera_presets import CameraMove, camera_strokes

AUTHORS_CANVAS: Size = (384, 256)
MAX_STROKES, MAX_POINTS, MAX_SIDE = 256, 1024, 16384

Model = TypeVar("Model", bound=BaseModel)

Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_SIDE, le=2 * MAX_SIDE)]
Point = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Time = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Side = Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)]
Points = Annotated[list[Point], Field(min_length=1, max_length=MAX_POINTS)]
Strokes = Annotated[list[Points], Field(max_length=MAX_STROKES)]
Times = Annotated[list[Annotated[list[Time], Field(max_length=MAX_POINTS)]], Field(max_length=MAX_STROKES)]


class TrajectoryError(UserError):
    """Trajectories that cannot be used; the message names the field, as in `trajectories[0][2]`."""


@dataclass(frozen=True)
class Stroke:
    """points (P, 2) in canvas pixels, x right, y down; times (P,) rising within 0..1."""

    points: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class Trajectories:
    """Strokes on a canvas of `width` x `height` pixels: what objects do, and what the camera does (mode `both`)."""

    width: int
    height: int
    strokes: tuple[Stroke, ...]
    camera_strokes: tuple[Stroke, ...] = ()

    @property
    def canvas(self) -> Size:
        return self.width, self.height

    def strokes_of(self, mode: Mode) -> tuple[Stroke, ...]:
        """The strokes that a mode moves by; in mode `both`, those of the objects.

        Raises:
            TrajectoryError: there are none, or in mode `both` none for the camera.
        """
        if mode == "both" and not self.camera_strokes:
            raise TrajectoryError("camera_trajectories: mode both needs at least one stroke")
        strokes = self.strokes or (self.camera_strokes if mode == "camera" else ())
        if mode != "both" and not strokes:
            raise TrajectoryError(f"trajectories: mode {mode} needs at least one stroke")
        return strokes


class Camera(BaseModel):
    """A camera move by name, see `models.strokes.camera_presets`."""

    model_config = ConfigDict(extra="forbid")

    move: CameraMove
    amount: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_SIDE)]


class TrajectoryFile(BaseModel):
    """The object format, as it stands in a file or a request."""

    model_config = ConfigDict(extra="forbid")

    width: Side
    height: Side
    trajectories: Strokes = []
    times: Times | None = None
    camera_trajectories: Strokes = []
    camera: Camera | None = None


class _AuthorsFile(BaseModel):
    trajectories: Annotated[Strokes, Field(min_length=1)]


def load_trajectories(path: str | Path, canvas: Size = AUTHORS_CANVAS) -> Trajectories:
    """Read a `.json` or `.npy` trajectory file. `canvas` is that of an `.npy`, which holds none.

    Raises:
        TrajectoryError: the file is missing or unreadable, or `parse_trajectories` refuses its content.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            data = np.load(path, allow_pickle=False)
        else:
            data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrajectoryError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TrajectoryError(f"{path}: not readable as {path.suffix or 'JSON'}: {error}") from None
    try:
        return parse_trajectories(data, canvas)
    except TrajectoryError as error:
        raise TrajectoryError(f"{path}: {error}") from None


def parse_trajectories(data: Any, canvas: Size = AUTHORS_CANVAS) -> Trajectories:
    """Check trajectories in any of the three formats. `canvas` is that of an array, which holds none.

    Raises:
        TrajectoryError: a field is missing, unknown, empty, wrongly nested, not finite or too long, a stroke starts
            outside its canvas, or times do not rise or do not match their points. Every message names the field.
    """
    if isinstance(data, Trajectories):
        return data
    if isinstance(data, np.ndarray):
        return _from_array(data, canvas)
    if isinstance(data, list):
        points = _validated(_AuthorsFile, {"trajectories": data}).trajectories
        moving = [[[x, y], [x + 1, y + 1]] if len(stroke) == 1 else stroke for stroke in points for x, y in stroke[:1]]
        return _checked(*AUTHORS_CANVAS, moving, None, [])
    if isinstance(data, dict):
        file = _validated(TrajectoryFile, data)
        return _checked(file.width, file.height, file.trajectories, file.times, _camera_points(file))
    raise TrajectoryError(f"trajectories: expected an object, a list of strokes or an array, got {type(data).__name__}")


def interpolate(stroke: Stroke, frames: int) -> np.ndarray:
    """Positions (frames, 2) at equal steps of time by monotone cubic (PCHIP) interpolation.

    Before the stroke's first time and after its last the position holds still.
    """
    if len(stroke.points) == 1:
        return np.repeat(stroke.points, frames, axis=0)
    moments = np.clip(np.linspace(0, 1, frames), stroke.times[0], stroke.times[-1])
    return PchipInterpolator(stroke.times, stroke.points)(moments)


def stroke_tracks(strokes: Sequence[Stroke], canvas: Size, frame: Size, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Take strokes from their canvas to the model's frame, as its image is taken there: scaled to cover, cropped.

    Args:
        canvas, frame: width and height in pixels.
        frames: T.

    Returns:
        tracks (T, N, 2) float32 in pixels of the frame, and visibility (T, N) bool: False once a track has been outside
        the frame for more than the step that takes it there.
    """
    if not strokes:
        return np.zeros((frames, 0, 2), np.float32), np.zeros((frames, 0), bool)
    points = np.stack([interpolate(stroke, frames) for stroke in strokes], axis=1)
    tracks = cover_crop(canvas, frame).points(points).astype(np.float32)
    inside = inside_frame(tracks, *frame)
    return tracks, inside | np.concatenate([inside[:1], inside[:-1]])


def _from_array(tracks: np.ndarray, canvas: Size) -> Trajectories:
    if tracks.ndim != 3 or tracks.shape[-1] != 2 or not np.issubdtype(tracks.dtype, np.number):
        raise TrajectoryError(f"trajectories: an array must be numbers of shape (T, N, 2), got {tracks.shape}")
    if not 1 <= tracks.shape[0] <= MAX_POINTS or not 1 <= tracks.shape[1] <= MAX_STROKES:
        raise TrajectoryError(
            f"trajectories: an array (T, N, 2) must have T in 1..{MAX_POINTS} and N in 1..{MAX_STROKES}, "
            f"got {tracks.shape}"
        )
    points = tracks.transpose(1, 0, 2).astype(np.float64).tolist()
    return parse_trajectories({"width": canvas[0], "height": canvas[1], "trajectories": points})


def _camera_points(file: TrajectoryFile) -> list[list[list[float]]]:
    if file.camera is None:
        return file.camera_trajectories
    if file.camera_trajectories:
        raise TrajectoryError("camera, camera_trajectories: give one of them")
    try:
        strokes = camera_strokes(file.camera.move, file.camera.amount, file.width, file.height)
    except ValueError as error:
        raise TrajectoryError(f"camera.{error}") from None
    return [stroke.tolist() for stroke in strokes]


def _checked(
    width: int,
    height: int,
    trajectories: list[list[list[float]]],
    times: list[list[float]] | None,
    camera_trajectories: list[list[list[float]]],
) -> Trajectories:
    if not trajectories and not camera_trajectories:
        raise TrajectoryError("trajectories: empty; draw at least one stroke")
    if times is not None and len(times) != len(trajectories):
        raise TrajectoryError(f"times: {len(times)} lists for {len(trajectories)} trajectories; give one for each")
    strokes = tuple(_stroke(f"trajectories[{i}]", points, width, height) for i, points in enumerate(trajectories))
    if times is not None:
        strokes = tuple(_timed(f"times[{i}]", stroke, times[i]) for i, stroke in enumerate(strokes))
    camera = tuple(_stroke(f"camera_trajectories[{i}]", p, width, height) for i, p in enumerate(camera_trajectories))
    return Trajectories(width, height, strokes, camera)


def _stroke(field: str, points: list[list[float]], width: int, height: int) -> Stroke:
    array = np.array(points, np.float64)
    if not inside_frame(array[0], width, height):
        x, y = points[0]
        raise TrajectoryError(
            f"{field}[0]: ({x:g}, {y:g}) lies outside the {width}x{height} canvas; a stroke must start on the picture"
        )
    return Stroke(array, np.linspace(0, 1, len(array)))


def _timed(field: str, stroke: Stroke, times: list[float]) -> Stroke:
    if len(times) != len(stroke.points):
        raise TrajectoryError(f"{field}: {len(times)} times for {len(stroke.points)} points; give one for each")
    if np.any(np.diff(times) <= 0):
        raise TrajectoryError(f"{field}: times must rise from point to point")
    return Stroke(stroke.points, np.array(times, np.float64))


def _validated(model: type[Model], data: dict[str, Any]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise TrajectoryError("; ".join(field_problems(error))) from None

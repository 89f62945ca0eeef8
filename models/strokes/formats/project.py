"""This project's JSON: drawn points in pixels of a canvas, with what other formats cannot hold.

{"width": W, "height": H, "trajectories": [[[x, y], ...], ...]}, one point pins a place. Optional:

- `times`: one number in 0..1 for each point of `trajectories`, rising.
- `visibility`: true or false for each point of `trajectories`.
- `camera_trajectories` with `camera_times`, or a camera move by name, `"camera": {"move": "zoom_in", "amount": 40}`.
- `frames`: how many frames the strokes were made for, where they hold one point per frame.
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import field_problems
from models.geometry import Size
from models.strokes.camera_presets import CameraMove, camera_strokes
from models.strokes.stroke import (
    MAX_POINTS,
    MAX_SIDE,
    MAX_STROKES,
    Stroke,
    Trajectories,
    TrajectoryError,
    even_times,
    touches,
)

Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_SIDE, le=2 * MAX_SIDE)]
Point = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Time = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Side = Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)]
PointList = Annotated[list[Point], Field(min_length=1, max_length=MAX_POINTS)]
StrokeList = Annotated[list[PointList], Field(max_length=MAX_STROKES)]
TimeLists = Annotated[list[Annotated[list[Time], Field(max_length=MAX_POINTS)]], Field(max_length=MAX_STROKES)]
Shown = Annotated[bool, Field(strict=True)]
ShownLists = Annotated[list[Annotated[list[Shown], Field(max_length=MAX_POINTS)]], Field(max_length=MAX_STROKES)]


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
    trajectories: StrokeList = []
    times: TimeLists | None = None
    visibility: ShownLists | None = None
    camera_trajectories: StrokeList = []
    camera_times: TimeLists | None = None
    camera: Camera | None = None
    frames: Annotated[int, Field(strict=True, ge=1, le=MAX_POINTS)] | None = None


class ProjectFormat:
    """This project's JSON; it holds everything."""

    name: ClassVar[str] = "image-conductor"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    default_frames: ClassVar[int | None] = None
    fixed_frames: ClassVar[bool] = False

    def recognises(self, content: Any) -> bool:
        return isinstance(content, dict)

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes of a parsed object; its own width and height are the canvas."""
        try:
            file = TrajectoryFile.model_validate(content)
        except ValidationError as error:
            raise TrajectoryError("; ".join(field_problems(error))) from None
        if not file.trajectories and not file.camera_trajectories and file.camera is None:
            raise TrajectoryError("trajectories: empty; draw at least one stroke")
        size = file.width, file.height
        strokes = _strokes("", file.trajectories, file.times, file.visibility, size)
        camera = _strokes("camera_", _camera_points(file), file.camera_times, None, size)
        return Trajectories(*size, strokes, camera, file.frames)

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """One file; nothing is lost, so `frames` has no effect."""
        text = json.dumps(as_object(drawn))
        return {path: f"{text}\n".encode()}, []


def as_object(drawn: Trajectories) -> dict[str, Any]:
    """The strokes as this project's JSON object; fields that say nothing are left out."""
    found: dict[str, Any] = {"width": drawn.width, "height": drawn.height}
    found["trajectories"] = [stroke.points.tolist() for stroke in drawn.strokes]
    if not all(stroke.is_even for stroke in drawn.strokes):
        found["times"] = [stroke.times.tolist() for stroke in drawn.strokes]
    if not all(stroke.visibility.all() for stroke in drawn.strokes):
        found["visibility"] = [stroke.visibility.tolist() for stroke in drawn.strokes]
    if drawn.camera_strokes:
        found["camera_trajectories"] = [stroke.points.tolist() for stroke in drawn.camera_strokes]
        if not all(stroke.is_even for stroke in drawn.camera_strokes):
            found["camera_times"] = [stroke.times.tolist() for stroke in drawn.camera_strokes]
    if drawn.frames is not None:
        found["frames"] = drawn.frames
    return found


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


def _strokes(
    kind: str,
    lists: list[list[list[float]]],
    times: list[list[float]] | None,
    shown: list[list[bool]] | None,
    canvas: Size,
) -> tuple[Stroke, ...]:
    for field, given in ((f"{kind}times", times), (f"{kind}visibility", shown)):
        if given is not None and len(given) != len(lists):
            raise TrajectoryError(f"{field}: {len(given)} lists for {len(lists)} {kind}trajectories; give one for each")
    strokes = []
    for i, points in enumerate(lists):
        moments = even_times(len(points))
        if times is not None:
            moments = np.array(_one_each(f"{kind}times[{i}]", times[i], points, "times"), np.float64)
            if np.any(np.diff(moments) <= 0):
                raise TrajectoryError(f"{kind}times[{i}]: times must rise from point to point")
        visibility = np.ones(len(points), bool)
        if shown is not None:
            visibility = np.array(_one_each(f"{kind}visibility[{i}]", shown[i], points, "truth values"), bool)
        stroke = Stroke(np.array(points, np.float64), moments, visibility)
        if visibility.any() and not touches(stroke, canvas):
            x, y = points[0]
            raise TrajectoryError(
                f"{kind}trajectories[{i}][0]: ({x:g}, {y:g}) lies outside the {canvas[0]}x{canvas[1]} canvas, and the "
                "stroke never comes onto the picture"
            )
        strokes.append(stroke)
    return tuple(strokes)


def _one_each(field: str, given: list[Any], points: list[list[float]], what: str) -> list[Any]:
    if len(given) != len(points):
        raise TrajectoryError(f"{field}: {len(given)} {what} for {len(points)} points; give one for each")
    return given

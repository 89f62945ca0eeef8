"""What the stroke editor sends and takes: JSON of picture, strokes and this project's trajectory object."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from models.errors import UserError
from models.modes import Mode
from models.sampling.picture import SeenPicture
from models.serving.image import MAX_IMAGE_BYTES, PixelBudget, decode_whole_image
from models.serving.limits import Limits
from models.strokes.stroke import Stroke, Trajectories
from models.strokes.trajectories import parse_trajectories

KEYS = ("image", "width", "height", "strokes")
KINDS, SPEEDS = ("object", "camera", "pin"), ("steady", "in", "out", "both", "drawn")
MAX_NUMBER = 1e6  # pixels; no coordinate of the editor comes near


class DrawingError(UserError):
    """A drawing that no video can be made of; the message begins with what is missing or wrong."""


@dataclass(frozen=True)
class Drawing:
    """picture and the bytes and suffix of its file; trajectories in its pixels; mode that follows from what is drawn;
    text: the editor's value, which opens the drawing again; notes: what was changed on the picture."""

    picture: Image.Image
    picture_bytes: bytes
    suffix: str
    trajectories: Trajectories
    mode: Mode
    text: str
    notes: tuple[str, ...] = ()


def read_drawing(text: str | None) -> Drawing:
    """Check what the editor has sent; it is a user's input like any other.

    Raises:
        UserError: no picture, no stroke, or one of them is refused. The message names the field.
    """
    value = _object(text)
    seen, data, suffix = read_picture(value)
    picture = seen.image
    file = value.get("file")
    if not isinstance(file, dict) or not (file.get("trajectories") or file.get("camera_trajectories")):
        raise DrawingError("strokes: draw at least one on the picture")
    drawn = parse_trajectories({**file, "width": picture.width, "height": picture.height})
    mode: Mode = "both" if drawn.strokes and drawn.camera_strokes else "camera" if drawn.camera_strokes else "object"
    strokes = value.get("strokes")
    if not isinstance(strokes, list) or not all(map(_is_editable, strokes)):
        strokes = _editable_strokes(drawn)
    kind = "png" if suffix == ".png" else "jpeg"
    image = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    kept = {"image": image, "width": picture.width, "height": picture.height, "strokes": strokes}
    return Drawing(picture, data, suffix, drawn, mode, json.dumps(kept), seen.notes)


def read_picture(value: dict[str, Any]) -> tuple[SeenPicture, bytes, str]:
    """Picture, its file's bytes and suffix, of the editor's data URL.

    Raises:
        UserError: there is none, or it is refused as the service would refuse it.
    """
    head, _, content = str(value.get("image") or "").partition(",")
    if not content:
        raise DrawingError("picture: drop, paste or choose one")
    if len(content) > MAX_IMAGE_BYTES * 4 // 3:
        raise DrawingError(f"picture: larger than {MAX_IMAGE_BYTES // 2**20} MB")
    picture = decode_whole_image(content, PixelBudget(Limits().max_pixels))
    return picture, base64.b64decode(content), ".png" if head.startswith("data:image/png") else ".jpg"


def canvas_of(text: str | None) -> tuple[int, int]:
    """Width and height of the editor's picture. Raises UserError if there is none."""
    return read_picture(_object(text))[0].image.size


def with_strokes(text: str | None, drawn: Trajectories) -> str:
    """The editor's value with these strokes added, whose canvas is its picture."""
    value = _object(text)
    strokes = [*(value.get("strokes") or []), *_editable_strokes(drawn)]
    return json.dumps({key: value.get(key) for key in KEYS} | {"strokes": strokes})


def new_drawing(picture: Image.Image, strokes: Sequence[dict[str, Any]] = ()) -> str:
    """The editor's value for a picture with strokes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return json.dumps({"image": image, "width": picture.width, "height": picture.height, "strokes": list(strokes)})


def continued(last_frame: Image.Image, drawn: Trajectories) -> str:
    """The editor's value for going on from a video's last frame: strokes in its pixels start where they ended."""
    strokes, camera_strokes = (
        tuple(replace(each, points=each.points + each.points[-1] - each.points[0]) for each in group)
        for group in (drawn.strokes, drawn.camera_strokes)
    )
    return new_drawing(last_frame, _editable_strokes(Trajectories(*drawn.canvas, strokes, camera_strokes)))


def _editable_strokes(drawn: Trajectories) -> list[dict[str, Any]]:
    """All strokes as the editor holds them."""
    groups = (("object", drawn.strokes), ("camera", drawn.camera_strokes))
    return [_editable(stroke, kind) for kind, group in groups for stroke in group]


def _is_editable(stroke: Any) -> bool:
    """Whether the editor can draw what it sent as a stroke: other visitors may open it from the history."""
    if not isinstance(stroke, dict) or stroke.get("kind") not in KINDS or stroke.get("speed") not in SPEEDS:
        return False
    points, times = stroke.get("points"), stroke.get("times", [])
    if not isinstance(points, list) or not points or not isinstance(times, list):
        return False
    numbers = [stroke.get("start"), stroke.get("end"), *times]
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            return False
        numbers += point
    return all(isinstance(number, int | float) and abs(number) < MAX_NUMBER for number in numbers)


def _editable(stroke: Stroke, kind: str) -> dict[str, Any]:
    """A stroke as the editor holds it: times become a span of the video and shares of it, "as drawn"."""
    points = np.round(stroke.points, 2).tolist()
    if len(points) == 1:
        return {
            "kind": "camera" if kind == "camera" else "pin",
            "points": points,
            "start": 0,
            "end": 1,
            "speed": "steady",
        }
    first, last = float(stroke.times[0]), float(stroke.times[-1])
    shares = ((stroke.times - first) / (last - first)).tolist()
    return {"kind": kind, "points": points, "start": first, "end": last, "speed": "drawn", "times": shares}


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError, TypeError):
        raise DrawingError("drawing: not readable; reload the page") from None
    if not isinstance(value, dict):
        raise DrawingError("drawing: not readable; reload the page")
    return value

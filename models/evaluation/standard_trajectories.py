"""The ten camera and ten object trajectories (Sec 3.1), as data: trajectories.json beside this file.

Camera trajectories are strokes spread over a 384x256 canvas, named after the motion of the picture. Object trajectories
are displacements in pixels of that canvas. They start on an object of the picture, and are mirrored to stay inside it.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.geometry import Size, cover_crop
from models.strokes.stroke import Stroke, interpolate, stroke_tracks

FILE = Path(__file__).with_name("trajectories.json")
MARGIN = 0.2  # of the frame's height; distance that an object's centre keeps from the frame's edge, if it can
MIRRORS = np.array([(1, 1), (-1, 1), (1, -1), (-1, -1)])


def camera_names() -> list[str]:
    return list(_data()["camera"])


def object_names() -> list[str]:
    return list(_data()["object"])


def camera_tracks(name: str, frame: Size, frames: int) -> np.ndarray:
    """Tracks (T, N, 2) float32 of a camera trajectory's strokes, in pixels of a frame of this width and height."""
    strokes = [_stroke(points) for points in _data()["camera"][name]]
    return stroke_tracks(strokes, _canvas(), frame, frames)[0]


def object_track(name: str, start: np.ndarray, frame: Size, frames: int) -> np.ndarray:
    """Track (T, 1, 2) float32 of an object trajectory from `start`, pixels of the frame.

    The trajectory is mirrored left-right, up-down or both if it would otherwise come closer to the frame's edge than
    `MARGIN`. The first mirroring that keeps the distance is taken.
    """
    width, height = frame
    path = interpolate(_stroke(_data()["object"][name]), frames) * cover_crop(_canvas(), frame).scaled[0] / _canvas()[0]
    candidates = start + MIRRORS[:, None] * path
    far_corner = np.array([width - 1, height - 1])
    room = np.minimum(candidates, far_corner - candidates).min((1, 2))
    best = np.minimum(room, MARGIN * height).argmax()
    return candidates[best][:, None].astype(np.float32)


@cache
def _data() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def _canvas() -> Size:
    return _data()["width"], _data()["height"]


def _stroke(points: list[list[float]]) -> Stroke:
    return Stroke.even(np.array(points, float))

"""The bare lists of the Image Conductor authors: [[[x, y], ...], ...] on a canvas of 384x256 pixels.

In their code a stroke of one point moves by (+1, +1) over the whole video.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.geometry import Size, cover_crop
from models.strokes.formats.common import CAMERA_AS_TRACKS, CAMERA_LEFT_OUT
from models.strokes.formats.project import ProjectFormat
from models.strokes.stroke import AUTHORS_CANVAS, Trajectories, TrajectoryError


class AuthorsFormat:
    """The authors' bare lists of drawn points."""

    name: ClassVar[str] = "authors"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    default_frames: ClassVar[int | None] = None
    fixed_frames: ClassVar[bool] = False

    def recognises(self, content: Any) -> bool:
        return isinstance(content, list)

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes on the authors' canvas, whatever `canvas` says."""
        if not content:
            raise TrajectoryError("trajectories: needs at least 1 stroke")
        width, height = AUTHORS_CANVAS
        drawn = ProjectFormat().decode({"width": width, "height": height, "trajectories": content}, canvas)
        if all(len(stroke) > 1 for stroke in content):
            return drawn
        moving = [
            [stroke[0], [stroke[0][0] + 1, stroke[0][1] + 1]] if len(stroke) == 1 else stroke for stroke in content
        ]
        return ProjectFormat().decode({"width": width, "height": height, "trajectories": moving}, canvas)

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """One file of drawn points, so `frames` has no effect. A pinned place becomes two equal points."""
        lost = []
        strokes = drawn.strokes or drawn.camera_strokes
        if drawn.camera_strokes:
            lost.append(CAMERA_LEFT_OUT if drawn.strokes else CAMERA_AS_TRACKS)
        if not all(stroke.is_even for stroke in strokes):
            lost.append("times were left out: points are at equal steps of time")
        if not all(stroke.visibility.all() for stroke in strokes):
            lost.append("visibility was left out: every point counts as visible")
        crop = cover_crop(drawn.canvas, AUTHORS_CANVAS)
        if drawn.canvas != AUTHORS_CANVAS:
            lost.append(f"the canvas of {drawn.width}x{drawn.height} was scaled to 384x256 and cropped to its middle")
        lists = []
        for stroke in strokes:
            points = stroke.points if drawn.canvas == AUTHORS_CANVAS else crop.points(stroke.points)
            lists.append(np.repeat(points, 2 if len(points) == 1 else 1, axis=0).tolist())
        return {path: f"{json.dumps(lists)}\n".encode()}, lost

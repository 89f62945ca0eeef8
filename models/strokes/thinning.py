"""Strokes of few points from tracks of many, for people to edit."""

from dataclasses import replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from models.strokes.stroke import Stroke, Trajectories


def thinned(stroke: Stroke, tolerance: float) -> Stroke:
    """The stroke with as few of its points as keep every other one within `tolerance` pixels of the curve in its frame.

    The point that is farthest off is added until none is. Strokes that are hidden anywhere, and those of one or two
    points, stay as they are. A stroke that rests becomes one point.
    """
    points, times = stroke.points, stroke.times
    if len(points) < 3 or not stroke.visibility.all():
        return stroke
    if np.linalg.norm(points - points[0], axis=1).max() <= tolerance:
        return Stroke.even(points[:1])
    kept = [0, len(points) - 1]
    while True:
        off = np.linalg.norm(PchipInterpolator(times[kept], points[kept])(times) - points, axis=1)
        off[kept] = 0
        if off.max() <= tolerance:
            return Stroke(points[kept], times[kept], stroke.visibility[kept])
        kept = sorted([*kept, int(off.argmax())])


def thinned_all(drawn: Trajectories, tolerance: float) -> Trajectories:
    """All strokes, thinned. They no longer hold one position per frame, so `frames` is None if any has changed."""
    strokes = tuple(thinned(stroke, tolerance) for stroke in drawn.strokes)
    camera = tuple(thinned(stroke, tolerance) for stroke in drawn.camera_strokes)
    same = all(len(a.points) == len(b.points) for a, b in zip(strokes, drawn.strokes, strict=True))
    return replace(drawn, strokes=strokes, camera_strokes=camera, frames=drawn.frames if same else None)

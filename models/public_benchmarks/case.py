"""One case of a public benchmark: a picture, a prompt, and where its points are in each frame."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from models.errors import UserError
from models.geometry import Size
from models.strokes.formats.common import from_tracks
from models.strokes.stroke import MAX_STROKES, Trajectories


class BenchmarkDataError(UserError):
    """A benchmark's folder that is not as published; the message names the file and what was expected."""


class PublicMotion(NamedTuple):
    """What a case asks for.

    picture: RGB, the first frame. tracks (T, N, 2) pixels of the picture. visibility (T, N) bool.
    on_object (N,) bool, which points start on an annotated object; None where the benchmark has no masks.
    """

    picture: Image.Image
    tracks: np.ndarray
    visibility: np.ndarray
    on_object: np.ndarray | None = None

    @property
    def canvas(self) -> Size:
        return self.picture.size


@dataclass(frozen=True)
class PublicCase:
    """name: unique in the benchmark. files: that decide the motion; other bytes in them make another case.

    read: opens the files and tracks what has to be tracked. It raises BenchmarkDataError.
    """

    name: str
    prompt: str
    files: tuple[Path, ...]
    read: Callable[[], PublicMotion]


def at_frames(motion: PublicMotion, frames: int) -> PublicMotion:
    """The motion at `frames` moments spread evenly over the whole clip, first and last frame included."""
    moments = np.linspace(0, len(motion.tracks) - 1, frames).round().astype(int)
    return motion._replace(tracks=motion.tracks[moments], visibility=motion.visibility[moments])


def thinned_points(motion: PublicMotion) -> PublicMotion:
    """At most as many points as a model takes, chosen evenly, of those that are visible in some frame."""
    known = np.flatnonzero(motion.visibility.any(0) & np.isfinite(motion.tracks).all((0, 2)))
    if len(known) > MAX_STROKES:
        known = known[np.linspace(0, len(known) - 1, MAX_STROKES).round().astype(int)]
    on_object = None if motion.on_object is None else motion.on_object[known]
    return PublicMotion(motion.picture, motion.tracks[:, known], motion.visibility[:, known], on_object)


def as_strokes(motion: PublicMotion) -> Trajectories:
    """The points as strokes on the picture, hidden where they are not visible.

    Raises:
        TrajectoryError: there is no point, or one is far outside the picture.
    """
    return from_tracks(motion.tracks, motion.visibility, motion.canvas)

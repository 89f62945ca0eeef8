"""Strokes on a canvas, and PCHIP interpolation to one position per frame.

A stroke may begin outside its canvas, leave it and come back; what lies outside has no effect. A point can be hidden:
between a hidden point and its neighbours nothing is known, so no motion is asked for there and none is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from models.errors import UserError
from models.geometry import Size, cover_crop, inside_frame
from models.modes import Mode

AUTHORS_CANVAS: Size = (384, 256)
MAX_STROKES, MAX_POINTS, MAX_SIDE = 1024, 1024, 16384
EPSILON = 1e-9  # share of the video; moments nearer than this to a point's time are that point


class TrajectoryError(UserError):
    """Trajectories that cannot be used; the message names the field, as in `trajectories[0][2]`."""


@dataclass(frozen=True)
class Stroke:
    """points (P, 2) in canvas pixels, x right, y down; times (P,) rising within 0..1; visibility (P,) bool."""

    points: np.ndarray
    times: np.ndarray
    visibility: np.ndarray

    @classmethod
    def even(cls, points: np.ndarray, visibility: np.ndarray | None = None) -> "Stroke":
        """Points (P, 2) at equal steps of time over the whole video, all visible if `visibility` (P,) is left out."""
        shown = np.ones(len(points), bool) if visibility is None else visibility
        return cls(points, even_times(len(points)), shown)

    def while_visible(self) -> "Stroke":
        """The part from the first visible point to the last one, all of it visible."""
        shown = np.flatnonzero(self.visibility)
        part = slice(shown[0], shown[-1] + 1)
        places = interpolate(self, len(self.points)) if self.is_even else self.points
        points = np.where(self.visibility[:, None], self.points, places)[part]
        return Stroke(points, self.times[part], np.ones(len(points), bool))

    @property
    def is_even(self) -> bool:
        return np.array_equal(self.times, even_times(len(self.times)))


@dataclass(frozen=True)
class Trajectories:
    """Strokes on a canvas of `width` x `height` pixels: what objects do, and what the camera does (mode `both`).

    frames: how many frames the strokes were made for, where their file holds one position per frame; None where they
        are drawn. notes: what a reader of the file had to decide, one sentence each.
    """

    width: int
    height: int
    strokes: tuple[Stroke, ...]
    camera_strokes: tuple[Stroke, ...] = ()
    frames: int | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

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

    def remarks(self, frames: int) -> tuple[str, ...]:
        """What a user should know about strokes that a video of `frames` frames is made of, one sentence each."""
        if self.frames in (None, 1, frames):
            return self.notes
        return *self.notes, f"strokes of {self.frames} frames were resampled in time to {frames}"


def on_canvas(drawn: Trajectories, canvas: Size) -> Trajectories:
    """The strokes on another canvas, whose picture is the old one scaled to cover it and cropped to its middle."""
    crop = cover_crop(drawn.canvas, canvas)
    strokes, camera = (
        tuple(replace(stroke, points=crop.points(stroke.points)) for stroke in group)
        for group in (drawn.strokes, drawn.camera_strokes)
    )
    return replace(drawn, width=canvas[0], height=canvas[1], strokes=strokes, camera_strokes=camera)


def even_times(count: int) -> np.ndarray:
    """Times (count,) at equal steps from 0 to 1."""
    return np.linspace(0, 1, count)


def interpolate(stroke: Stroke, frames: int) -> np.ndarray:
    """Positions (frames, 2) at equal steps of time by monotone cubic (PCHIP) interpolation of the visible points.

    Before the stroke's first time and after its last the position holds still.
    """
    shown = stroke.visibility if stroke.visibility.any() else np.ones(len(stroke.points), bool)
    points, times = stroke.points[shown], stroke.times[shown]
    if len(points) == 1:
        return np.repeat(points, frames, axis=0)
    return PchipInterpolator(times, points)(np.clip(even_times(frames), times[0], times[-1]))


def shown_at(stroke: Stroke, frames: int) -> np.ndarray:
    """Whether the stroke is visible (frames,) at equal steps of time: where the points on both sides are."""
    moments = np.clip(even_times(frames), stroke.times[0], stroke.times[-1])
    before = np.searchsorted(stroke.times, moments + EPSILON, side="right") - 1
    after = np.searchsorted(stroke.times, moments - EPSILON, side="left")
    return stroke.visibility[before] & stroke.visibility[after]


def stroke_tracks(strokes: Sequence[Stroke], canvas: Size, frame: Size, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Take strokes from their canvas to the model's frame, as its image is taken there: scaled to cover, cropped.

    Args:
        canvas, frame: width and height in pixels.
        frames: T.

    Returns:
        tracks (T, N, 2) float32 in pixels of the frame, and visibility (T, N) bool: False where a stroke is hidden, and
        once a track has been outside the frame for more than the step that takes it there.
    """
    if not strokes:
        return np.zeros((frames, 0, 2), np.float32), np.zeros((frames, 0), bool)
    points = np.stack([interpolate(stroke, frames) for stroke in strokes], axis=1)
    shown = np.stack([shown_at(stroke, frames) for stroke in strokes], axis=1)
    tracks = cover_crop(canvas, frame).points(points).astype(np.float32)
    inside = inside_frame(tracks, *frame)
    return tracks, shown & (inside | np.concatenate([inside[:1], inside[:-1]]))


def touches(stroke: Stroke, canvas: Size) -> bool:
    """Whether a stroke lies on its canvas at some time while it is visible."""
    if inside_frame(stroke.points[stroke.visibility], *canvas).any():
        return True
    frames = 8 * len(stroke.points) + 1
    return bool(inside_frame(interpolate(stroke, frames)[shown_at(stroke, frames)], *canvas).any())

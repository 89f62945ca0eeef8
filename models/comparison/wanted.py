"""What strokes ask of a video: where a point should be in each frame, and which steps count.

A step counts where the stroke is visible and inside the frame. A stroke that enters the frame later, or is hidden at
first, is followed from the first frame that it is seen in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.estimators import PointTracker
from models.geometry import Size, inside_frame
from models.strokes.stroke import Stroke, stroke_tracks


class WantedTracks(NamedTuple):
    """tracks (T, N, 2) pixels of the video, at rest until they start; counts (T, N) bool, the steps that are measured;
    starts (N,): the frame that each is followed from; numbers (N,): which strokes they are."""

    tracks: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    numbers: np.ndarray


def wanted_tracks(strokes: Sequence[Stroke], canvas: Size, frame: Size, frames: int) -> WantedTracks:
    """The strokes in a video of `frames` frames of size `frame`; those that are never seen there are left out."""
    tracks, visibility = stroke_tracks(strokes, canvas, frame, frames)
    seen = visibility & inside_frame(tracks, *frame)
    numbers = np.flatnonzero(seen.any(0))
    tracks, seen = tracks[:, numbers], seen[:, numbers]
    starts = seen.argmax(0)
    waiting = np.arange(frames)[:, None] <= starts
    first = np.take_along_axis(tracks, starts[None, :, None], 0)
    return WantedTracks(np.where(waiting[..., None], first, tracks), seen & ~waiting, starts, numbers)


def follow_wanted(video: np.ndarray, wanted: WantedTracks, follow: PointTracker) -> tuple[np.ndarray, np.ndarray]:
    """Tracks (T, N, 2) and visibility (T, N) in a video (T, H, W, 3) uint8, each from the frame that it starts in."""
    tracks = wanted.tracks.copy()
    visibility = np.ones(wanted.counts.shape, bool)
    for start in np.unique(wanted.starts):
        which = np.flatnonzero(wanted.starts == start)
        if start < len(video) - 1:
            tracks[start:, which], visibility[start:, which] = follow(video[start:], wanted.tracks[start, which])
    return tracks, visibility

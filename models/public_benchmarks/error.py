"""End-point error on visible points, as MotionStream reports it (Shin et al. 2025)."""

from dataclasses import dataclass

import numpy as np

from models.comparison.wanted import follow_wanted, wanted_tracks
from models.estimators import PointTracker
from models.geometry import cover_crop
from models.metrics import equivalent_pixels
from models.public_benchmarks.case import PublicMotion, as_strokes


@dataclass(frozen=True)
class EndPointError:
    """Distances of one video, in pixels: means over the steps and points that count.

    px: in pixels of the benchmark's picture. px_384: in pixels of a 384x256 video, the paper's size.
    still: of a copy of the picture that does not move, in pixels of the picture. object_px: of the points on objects,
    None if none counts. steps: (frame, point) pairs that count. lost: share of them that the tracker does not see in
    the generated video; their distance counts all the same, as the tracker guesses it.
    """

    px: float
    px_384: float
    still: float
    object_px: float | None
    steps: int
    lost: float


def end_point_error(video: np.ndarray, motion: PublicMotion, follow: PointTracker) -> EndPointError | None:
    """Follow the points through a generated video and compare; None if no step counts.

    A step counts if it lies after the first frame in which the point is visible, and the point is visible in it and
    lies in the part of the picture that the video shows.

    Args:
        video: (T, H, W, 3) uint8, the picture scaled to cover the frame and cropped to its middle.
        motion: of T frames.
    """
    frames, height, width = video.shape[:3]
    wanted = wanted_tracks(as_strokes(motion).strokes, motion.canvas, (width, height), frames)
    if not wanted.counts.any():
        return None
    tracks, seen = follow_wanted(video, wanted, follow)
    distance = np.linalg.norm(tracks - wanted.tracks, axis=-1)
    moved = np.linalg.norm(wanted.tracks - wanted.tracks[:1], axis=-1)
    crop = cover_crop(motion.canvas, (width, height))
    scale = crop.source[0] / crop.scaled[0]
    px = float(distance[wanted.counts].mean())
    return EndPointError(
        px * scale,
        equivalent_pixels(px, width),
        float(moved[wanted.counts].mean()) * scale,
        _of_objects(distance, wanted.counts, wanted.numbers, motion.on_object, scale),
        int(wanted.counts.sum()),
        float(1 - seen[wanted.counts].mean()),
    )


def _of_objects(
    distance: np.ndarray, counts: np.ndarray, numbers: np.ndarray, on_object: np.ndarray | None, scale: float
) -> float | None:
    if on_object is None:
        return None
    counts = counts & on_object[numbers]
    return float(distance[counts].mean()) * scale if counts.any() else None

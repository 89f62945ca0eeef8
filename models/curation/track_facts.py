"""How good the tracks of a clip are, in numbers on which the clip may be dropped.

Most points of a dissolve or of a blurred picture are lost on the way; tracks that do not lead back to where they began
have drifted.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from models.estimators import PointTracker

OWN = 0.03  # of the frame's height: a point this far from where the camera takes it moves on its own
CAMERA_TOLERANCE = 0.01  # of the frame's height: points this near to where the camera takes them are its background
CHECKED = 4  # frames after the first, at equal distances, at which points are compared with the camera's motion
MIN_POINTS = 8  # seen points that the camera's motion is fitted to, at least


@dataclass(frozen=True)
class TrackFacts:
    """Shares 0..1 of the grid's points.

    seen_first, seen_middle, seen_last: points that are seen in the first, middle and last frame.
    round_trip: median distance between a point and where it arrives when it is followed back from the last frame, as a
        share of the frame's height; None if it was not measured, or if no point is seen in the last frame.
    own_motion: points that move on their own, not with the camera; None if too few points are seen to tell.
    """

    seen_first: float
    seen_middle: float
    seen_last: float
    round_trip: float | None
    own_motion: float | None


@dataclass(frozen=True)
class TrackLimits:
    """Limits of `TrackFacts`; None switches a check off."""

    min_seen_middle: float | None
    min_seen_last: float | None
    max_round_trip: float | None
    max_own_motion: float | None


def misses(frames: np.ndarray, tracks: np.ndarray, follow: PointTracker) -> np.ndarray:
    """How far each point (N,) of tracks (T, N, 2) misses its start when it is followed back from the last frame.

    In shares of the height of the frames (T, H, W, 3) uint8.
    """
    back, _ = follow(frames[::-1], tracks[-1])
    return np.linalg.norm(back[-1] - tracks[0], axis=-1) / frames.shape[1]


def hide_drifted(visibility: np.ndarray, missed: np.ndarray, most: float) -> np.ndarray:
    """Visibility (T, N) in which points seen at the end that miss their start by more are hidden from frame 1 on."""
    shown = visibility.copy()
    shown[1:, visibility[-1] & (missed > most)] = False
    return shown


def measure_tracks(tracks: np.ndarray, visibility: np.ndarray, height: int, missed: np.ndarray | None) -> TrackFacts:
    """Measure the tracks (T, N, 2) in pixels, with visibility (T, N), of frames of this height.

    Args:
        missed: (N,) see `misses`; None leaves `round_trip` unmeasured.
    """
    first, middle, last = (float(visibility[t].mean()) for t in (0, len(tracks) // 2, -1))
    round_trip = None
    if missed is not None and visibility[-1].any():
        round_trip = float(np.median(missed[visibility[-1]]))
    return TrackFacts(first, middle, last, round_trip, _own_motion(tracks, visibility, height))


def why_unusable(facts: TrackFacts, limits: TrackLimits) -> str:
    """The reason to drop a clip with such tracks; empty if there is none."""
    values, bounds = vars(facts), vars(limits)
    wanted = {
        "seen_middle": "lost tracks: {value:.0%} of the points are seen in the middle frame",
        "seen_last": "lost tracks: {value:.0%} of the points are seen in the last frame",
        "round_trip": "drifting tracks: followed back, points miss their start by {value:.1%} of the frame's height",
        "own_motion": "own motion: {value:.0%} of the points do not move with the camera",
    }
    for name, words in wanted.items():
        value, least, most = values[name], bounds.get(f"min_{name}"), bounds.get(f"max_{name}")
        if value is None:
            continue
        if least is not None and value < least:
            return f"{words.format(value=value)}, wanted at least {least:g}"
        if most is not None and value > most:
            return f"{words.format(value=value)}, allowed {most:g}"
    return ""


def _own_motion(tracks: np.ndarray, visibility: np.ndarray, height: int) -> float | None:
    """Share of the points that leave the similarity which most points obey, from frame 0 to one of the CHECKED."""
    own, measured = np.zeros(tracks.shape[1], bool), False
    for t in np.unique(np.linspace(0, len(tracks) - 1, CHECKED + 1).round().astype(int))[1:]:
        seen = visibility[0] & visibility[t]
        if seen.sum() < MIN_POINTS:
            continue
        start, end = tracks[0][seen], tracks[t][seen]
        matrix, _ = cv2.estimateAffinePartial2D(start, end, ransacReprojThreshold=CAMERA_TOLERANCE * height)
        if matrix is None or not np.isfinite(matrix).all():
            continue
        measured = True
        apart = np.linalg.norm(start @ matrix[:, :2].T + matrix[:, 2] - end, axis=-1)
        own[np.flatnonzero(seen)[apart > OWN * height]] = True
    return float(own.mean()) if measured else None

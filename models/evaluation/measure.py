"""The measurements of one generated video, with every tracker."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.estimators import PointTracker
from models.evaluation.experiment import Case
from models.evaluation.look import colour_drift, detail_kept, psnr, ssim
from models.metrics import Following, MotionError, against_background, following, trajectory_error

HIGHEST_PSNR = 100.0  # dB; PSNR of equal pictures, so that a mean stays finite


@dataclass(frozen=True)
class Look:
    """First-frame fidelity and drift.

    psnr, ssim: of frame 0 against the picture, psnr in dB.
    colour, detail: (T,) colour drift in grey levels and share of detail kept, of each frame against frame 0."""

    psnr: float
    ssim: float
    colour: np.ndarray
    detail: np.ndarray


@dataclass(frozen=True)
class Motion:
    """How a video moves, by one tracker.

    error: trajectory error of the strokes.
    strokes: how far the points under the strokes follow them; None if the strokes differ.
    background: how far the background follows; None if the strokes differ, or the case has no background points.
    object_alone: how far the object moves against the background; None if the case lacks points of either.
    """

    error: MotionError
    strokes: Following | None
    background: Following | None
    object_alone: Following | None


@dataclass(frozen=True)
class Measured:
    """A case's video in numbers: motions by tracker, and its look."""

    case: Case
    motions: dict[str, Motion]
    look: Look


def measure(case: Case, video: np.ndarray, trackers: Mapping[str, PointTracker], camera: bool) -> Measured:
    """Measure a video (T, H, W, 3) uint8.

    Args:
        trackers: by name.
        camera: whether the video was made in camera mode, where the background should follow, not rest.
    """
    motions = {name: _motion(case, video, follow, camera) for name, follow in trackers.items()}
    return Measured(case, motions, look(video, case.first_frame))


def look(video: np.ndarray, picture: np.ndarray) -> Look:
    """The look of a video (T, H, W, 3) uint8 that should begin with `picture` (H, W, 3) uint8."""
    fidelity = min(psnr(video[0], picture), HIGHEST_PSNR)
    return Look(fidelity, ssim(video[0], picture), colour_drift(video), detail_kept(video))


def _motion(case: Case, video: np.ndarray, follow: PointTracker, camera: bool) -> Motion:
    tracks, visibility = follow(video, np.concatenate([case.wanted[0], case.background, case.body]))
    ends = np.cumsum([case.wanted.shape[1], len(case.background)])
    strokes, background, body = (
        (tracks[:, part], visibility[:, part]) for part in (slice(ends[0]), slice(*ends), slice(ends[1], None))
    )
    return Motion(
        trajectory_error(*strokes, case.wanted),
        _following(case, *strokes, if_lost=0.0),
        _following(case, *background, if_lost=0.0 if camera else 1.0),
        against_background(*body, *background, case.wanted) if len(case.body) and len(case.background) else None,
    )


def _following(case: Case, tracks: np.ndarray, visibility: np.ndarray, if_lost: float) -> Following | None:
    if case.stroke is None or not tracks.shape[1]:
        return None
    return following(tracks, visibility, case.stroke, if_lost)

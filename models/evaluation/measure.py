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
    background: how far the background follows; None if the strokes differ, or the case has no background points. It
        should follow the strokes in camera mode, those of the camera in mode `both`, and rest otherwise.
    background_error: the distance of the background's points from where they should be; None as for `background`.
    into_object: in mode `both`, how far the object follows the camera's strokes beyond its own; otherwise None.
    into_background: in mode `both`, how far the background follows the object's strokes; otherwise None.
    object_alone: how far the object moves against the background; None if the case lacks points of either.
    """

    error: MotionError
    strokes: Following | None
    background: Following | None
    object_alone: Following | None
    background_error: MotionError | None = None
    into_object: Following | None = None
    into_background: Following | None = None


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
        camera: whether the video was made in camera mode, where the background should follow the strokes, not rest.
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
    both = case.camera.size > 0
    carried_by = case.camera_stroke if both else case.stroke
    should_move = np.zeros((len(tracks), 2), np.float32) if not (both or camera) else carried_by
    return Motion(
        trajectory_error(*strokes, case.wanted),
        _following(*strokes, case.stroke, if_lost=0.0),
        _following(*background, carried_by, if_lost=0.0 if camera or both else 1.0),
        against_background(*body, *background, case.wanted)
        if len(case.body) and len(case.background) and not both
        else None,
        _error(*background, should_move),
        _beyond(*strokes, case.stroke, case.camera_stroke) if both else None,
        _beyond(*background, case.camera_stroke, case.stroke) if both else None,
    )


def _following(
    tracks: np.ndarray, visibility: np.ndarray, stroke: np.ndarray | None, if_lost: float
) -> Following | None:
    if stroke is None or not tracks.shape[1]:
        return None
    return following(tracks, visibility, stroke, if_lost)


def _error(tracks: np.ndarray, visibility: np.ndarray, stroke: np.ndarray | None) -> MotionError | None:
    if stroke is None or not tracks.shape[1]:
        return None
    return trajectory_error(tracks, visibility, tracks[:1] + stroke[:, None])


def _beyond(
    tracks: np.ndarray, visibility: np.ndarray, own: np.ndarray | None, other: np.ndarray | None
) -> Following | None:
    """How far points follow the `other` stroke after their `own` is taken away."""
    if own is None:
        return None
    return _following(tracks - own[:, None], visibility, other, if_lost=1.0)

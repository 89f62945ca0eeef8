"""What the evaluation measures (Sec 3.1, App C.2), as pure functions.

CamMC and ObjMC are the Euclidean distance between a wanted trajectory and the one tracked in the generated video. Their
unit is the pixel of a 384x256 frame. Frame 0 is left out, because it is given. The mean is taken over frames and points
of each video first, then over videos: a video with more strokes does not count more.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

REFERENCE_WIDTH = 384
RESAMPLES = 2000


class MotionError(NamedTuple):
    """Trajectory error of one video.

    px: mean error, in pixels of that video.
    stroke: the error of a video in which nothing moves, in the same pixels.
    lost: whether any track was lost.
    """

    px: float
    stroke: float
    lost: bool

    @property
    def relative(self) -> float:
        """The error divided by the stroke: 0 is perfect, 1 is as bad as a still copy; NaN if the stroke is still."""
        return self.px / self.stroke if self.stroke else float("nan")

    def equivalent(self, width: int) -> "MotionError":
        """The same error in pixels of a 384x256 video, from a video that is `width` pixels wide."""
        return MotionError(equivalent_pixels(self.px, width), equivalent_pixels(self.stroke, width), self.lost)


class Following(NamedTuple):
    """How points of one video follow a stroke.

    share: part of the stroke that the points follow; 0: they rest, 1: they follow it fully.
    px: distance that they move in pixels, mean over the frames after the first.
    lost: whether the tracker lost them.
    """

    share: float
    px: float
    lost: bool


class Summary(NamedTuple):
    """Mean over n videos, its 95 % interval, the number of failures, and the mean without failures (NaN: none left)."""

    mean: float
    low: float
    high: float
    n: int
    failures: int
    kept: float


def trajectory_error(
    tracks: np.ndarray, visibility: np.ndarray, wanted: np.ndarray, inside: np.ndarray | None = None
) -> MotionError:
    """Distance between tracked and wanted trajectories of one video.

    A track that is invisible in the last frame is lost. It counts as a failure, and its error is at least that of a
    still video. So a dissolving object is never better than an object that does not move. At every other step where a
    track is invisible, its place is a guess, and the error is at least that of a still video as well.

    Args:
        tracks: (T, N, 2) pixels, as tracked from `wanted[0]`.
        visibility: (T, N) bool.
        wanted: (T, N, 2) pixels.
        inside: (T, N) bool, where `wanted` lies in the frame; None: everywhere. Steps outside the frame are left out.
            A track is lost if it is invisible at its last step inside the frame.

    Raises:
        ValueError: no step after frame 0 lies inside.
    """
    counts = np.ones(visibility.shape, bool)[1:] if inside is None else inside[1:]
    strokes = counts.any(0)
    if not strokes.any():
        raise ValueError("no stroke stays in the frame after frame 0")
    seen, counts = visibility[1:, strokes], counts[:, strokes]
    error = np.linalg.norm(tracks - wanted, axis=-1)[1:, strokes]
    still = np.linalg.norm(wanted[:1] - wanted, axis=-1)[1:, strokes]
    last = len(counts) - 1 - counts[::-1].argmax(0)
    lost = ~np.take_along_axis(seen, last[None], 0)[0]
    stroke = _mean_where(counts, still)
    error = _mean_where(counts, np.where(seen, error, np.maximum(error, still)))
    error = np.where(lost, np.maximum(error, stroke), error)
    return MotionError(float(error.mean()), float(stroke.mean()), bool(lost.any()))


def still_error(wanted: np.ndarray, inside: np.ndarray | None = None) -> MotionError:
    """The error of a video in which nothing moves. The arguments are those of `trajectory_error`."""
    still = np.broadcast_to(wanted[:1], wanted.shape)
    return trajectory_error(still, np.ones(wanted.shape[:2], bool), wanted, inside)


def errors_of_videos(
    videos: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    follow: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float]:
    """Sum of trajectory errors of videos (T, H, W, 3) uint8, and the sum of a still copy's errors, in px.

    Args:
        wanted: tracks (T, N, 2) for each video.
        follow: a point tracker.
    """
    total = still = 0.0
    for video, paths in zip(videos, wanted, strict=True):
        total += trajectory_error(*follow(video, paths[0]), paths).px
        still += still_error(paths).px
    return total, still


def following(tracks: np.ndarray, visibility: np.ndarray, stroke: np.ndarray, if_lost: float) -> Following:
    """The share of a stroke that points follow: their displacement projected on the stroke, divided by the stroke.

    The displacement is the median over the points. The share is fitted by least squares to all frames after the first,
    so curves and return paths count too. The points are lost if fewer than half are visible at the end. If lost, the
    share is clamped to `if_lost` or worse, and the distance to `if_lost` times the stroke length or worse.

    Args:
        tracks: (T, N, 2) pixels.
        visibility: (T, N) bool.
        stroke: (T, 2) pixels.
        if_lost: 1 where the points should rest, 0 where they should follow.
    """
    moved = np.median(tracks - tracks[:1], axis=1)[1:]
    wanted = (stroke - stroke[:1])[1:]
    share = float((moved * wanted).sum() / np.square(wanted).sum())
    px = float(np.linalg.norm(moved, axis=-1).mean())
    lost = bool(visibility[-1].mean() < 0.5)
    if lost:
        worse = max if if_lost else min
        share = worse(share, if_lost)
        px = worse(px, if_lost * float(np.linalg.norm(wanted, axis=-1).mean()))
    return Following(share, px, lost)


def against_background(
    tracks: np.ndarray,
    visibility: np.ndarray,
    background: np.ndarray,
    background_visibility: np.ndarray,
    strokes: np.ndarray,
) -> Following:
    """How far an object moves against the background, where both should follow the camera.

    The background's motion is a similarity, fitted to its points in each frame, so zooms and rolls of the whole scene
    do not count. The distance is measured between the object and the place where that motion would take it: the median
    over the object's points, then the mean over the frames. `share` is this distance divided by the strokes' mean
    length. If fewer than half the points of object or background are visible at the end, the object counts as lost and
    as having moved by a whole stroke.

    Args:
        tracks, visibility: (T, N, 2) pixels and (T, N) bool of the object's points.
        background, background_visibility: (T, M, 2) pixels and (T, M) bool of the background's points.
        strokes: (T, K, 2) pixels, the camera strokes of the request.
    """
    apart = []
    for t in range(1, len(tracks)):
        seen = background_visibility[t]
        matrix = cv2.estimateAffinePartial2D(background[0, seen], background[t, seen])[0] if seen.sum() >= 3 else None
        if matrix is not None:
            carried = tracks[0] @ matrix[:, :2].T + matrix[:, 2]
            apart.append(np.median(np.linalg.norm(tracks[t] - carried, axis=-1)))
    length = float(np.linalg.norm(strokes - strokes[:1], axis=-1)[1:].mean())
    lost = bool(visibility[-1].mean() < 0.5 or background_visibility[-1].mean() < 0.5 or not apart)
    px = max(float(np.mean(apart)) if apart else 0.0, length if lost else 0.0)
    return Following(px / length, px, lost)


def summarise(values: Sequence[float], lost: Sequence[bool], groups: Sequence[Hashable], seed: int) -> Summary:
    """Mean, 95 % interval, n and failures.

    Videos of one picture are alike, so the interval comes from a cluster bootstrap: whole groups are drawn with
    replacement, with all their videos (percentiles of 2000 resamples, drawn from `seed`). With few groups the interval
    is still too narrow. With one group its width is zero.

    Args:
        values, lost, groups: one entry for each video; videos of one group are drawn together.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("no video to take the mean of")
    sample, failed = np.asarray(values, float), np.asarray(lost, bool)
    low, high = interval(sample, groups, seed)
    kept = float(sample[~failed].mean()) if not failed.all() else float("nan")
    return Summary(float(sample.mean()), low, high, len(sample), int(failed.sum()), kept)


def interval(values: np.ndarray, groups: Sequence[Hashable], seed: int) -> tuple[float, float]:
    """95 % interval of the mean of values (n,) by cluster bootstrap over their groups; see `summarise`."""
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    member = np.array([index[group] for group in groups])
    total, count = np.bincount(member, values), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(index), size=(RESAMPLES, len(index)))
    means = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def equivalent_pixels(px: float, width: int) -> float:
    """Convert pixels of a video that is `width` wide to pixels of a 384x256 video."""
    return px * REFERENCE_WIDTH / width


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two feature sets (n, D) and (m, D).

    It falls with n, even between samples of one distribution. Never compare values of different n.

    The trace of the square root of both covariances' product is a sum of singular values. This is exact for singular
    covariances too, and takes a small part of the time of a matrix square root.
    """
    sets = [np.asarray(x, float) for x in (features, reference)]
    apart = np.square(sets[0].mean(0) - sets[1].mean(0)).sum()
    first, second = (_covariance_factor(x) for x in sets)
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return float(apart + np.square(first).sum() + np.square(second).sum() - 2 * shared)


def _covariance_factor(features: np.ndarray) -> np.ndarray:
    """A matrix F (at most D rows) with F^T F = covariance (D, D) of features (n, D)."""
    if len(features) <= features.shape[1]:
        return (features - features.mean(0)) / np.sqrt(len(features) - 1)
    values, vectors = np.linalg.eigh(np.cov(features, rowvar=False))
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _mean_where(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean (N,) of values (T, N) over the frames where `counts` is true; each column has such a frame."""
    return np.where(counts, values, 0).sum(0) / counts.sum(0)


def tap_vid(
    tracks: np.ndarray,
    visibility: np.ndarray,
    truth: np.ndarray,
    seen: np.ndarray,
    thresholds: tuple[int, ...] = (1, 2, 4, 8, 16),
) -> dict[str, float]:
    """Metrics of TAP-Vid for points of frame 0. Frame 0 itself and points that are hidden in it are left out.

    Args:
        tracks, truth: (T, N, 2) pixels, found and true.
        visibility, seen: (T, N) bool, found and true.

    Returns:
        Shares in 0..1, NaN where nothing can be counted.
        `within_<d>_px`: truly visible positions that are found within d px; `position_accuracy`: the mean over d.
        `occlusion_accuracy`: positions whose visibility is found correctly.
        `jaccard_<d>_px`: true positives / (true positives + misses + false positives), where a true positive is
        visible and within d px; `average_jaccard`: the mean over d.
        `occluded`: points that are hidden in some frame.
    """
    known = seen[0]
    error = np.linalg.norm(tracks - truth, axis=-1)[1:, known]
    found, there = visibility[1:, known], seen[1:, known]
    figures: dict[str, float] = {}
    for d in thresholds:
        near = error < d
        hits = (near & found & there).sum()
        wrong = (found & ~(near & there)).sum()
        figures[f"within_{d}_px"] = _share(near[there].sum(), there.sum())
        figures[f"jaccard_{d}_px"] = _share(hits, there.sum() + wrong)
    return figures | {
        "position_accuracy": float(np.mean([figures[f"within_{d}_px"] for d in thresholds])),
        "average_jaccard": float(np.mean([figures[f"jaccard_{d}_px"] for d in thresholds])),
        "occlusion_accuracy": _share((found == there).sum(), there.size),
        "occluded": _share((~there).any(0).sum(), there.shape[1]),
    }


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")

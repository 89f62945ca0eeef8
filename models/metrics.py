"""What the evaluation measures (Sec 3.1, App C.2), as pure functions.

CamMC and ObjMC are the Euclidean distance between a wanted trajectory and the one tracked in the generated video. Here:
in pixels at 384x256-equivalent, frame 0 left out (it is given), mean over frames and points of a video, then the mean
over videos, so that no video counts more for having more strokes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pytorch_fid.fid_score import calculate_frechet_distance

REFERENCE_WIDTH = 384
RESAMPLES = 2000


class VideoError(NamedTuple):
    """px: mean error of one video, in pixels of that video; lost: whether any of its tracks was lost."""

    px: float
    lost: bool


class BackgroundShare(NamedTuple):
    """share: of the stroke that the background follows (0: it rests, 1: all); lost: the background cannot be told."""

    share: float
    lost: bool


class Summary(NamedTuple):
    """Mean over n videos, its 95 % interval, and how many of them were failures."""

    mean: float
    low: float
    high: float
    n: int
    failures: int


def trajectory_error(tracks: np.ndarray, visibility: np.ndarray, wanted: np.ndarray) -> VideoError:
    """Distance between tracked and wanted trajectories of one video.

    A track that the tracker no longer sees in the last frame is lost: it counts as a failure, and at least as a still
    video's error, so a dissolving object is never better than one that stays where it was. So does each other step at
    which it is unseen, since its place there is a guess.

    Args:
        tracks: (T, N, 2) pixels, as tracked from `wanted[0]`.
        visibility: (T, N) bool.
        wanted: (T, N, 2) pixels.
    """
    error = np.linalg.norm(tracks - wanted, axis=-1)[1:]
    still = np.linalg.norm(wanted[:1] - wanted, axis=-1)[1:]
    error = np.where(visibility[1:], error, np.maximum(error, still)).mean(0)
    lost = ~visibility[-1]
    error = np.where(lost, np.maximum(error, still.mean(0)), error)
    return VideoError(float(error.mean()), bool(lost.any()))


def still_error(wanted: np.ndarray) -> VideoError:
    """The error of a video in which nothing moves, for wanted trajectories (T, N, 2) in pixels."""
    still = np.broadcast_to(wanted[:1], wanted.shape)
    return trajectory_error(still, np.ones(wanted.shape[:2], bool), wanted)


def background_share(tracks: np.ndarray, visibility: np.ndarray, stroke: np.ndarray, if_lost: float) -> BackgroundShare:
    """How much of a stroke the background follows: its displacement projected on the stroke, over the stroke.

    The background's displacement is the median over its points, the ratio the least-squares one over all frames after
    the first, so that curves and ways back count too. Where fewer than half the points are seen at the end, the
    background is lost, and the share at least as bad as `if_lost`.

    Args:
        tracks: (T, N, 2) pixels, N points of the background.
        visibility: (T, N) bool.
        stroke: (T, 2) pixels.
        if_lost: 1 where the background should rest, 0 where it should follow.
    """
    moved = np.median(tracks - tracks[:1], axis=1)[1:]
    wanted = (stroke - stroke[:1])[1:]
    share = float((moved * wanted).sum() / np.square(wanted).sum())
    lost = bool(visibility[-1].mean() < 0.5)
    if lost:
        share = max(share, if_lost) if if_lost else min(share, if_lost)
    return BackgroundShare(share, lost)


def summarise(values: Sequence[float], lost: Sequence[bool], seed: int) -> Summary:
    """Mean, 95 % bootstrap interval over videos (percentiles of 2000 resamples, drawn from `seed`), n and failures.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("no video to take the mean of")
    rng = np.random.default_rng(seed)
    sample = np.asarray(values, float)
    means = rng.choice(sample, (RESAMPLES, len(sample))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Summary(float(sample.mean()), float(low), float(high), len(sample), int(np.sum(lost)))


def equivalent_pixels(px: float, width: int) -> float:
    """Pixels of a video `width` wide as pixels of a 384x256 one."""
    return px * REFERENCE_WIDTH / width


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two feature sets (n, D) and (m, D).

    It falls with n, also between samples of one distribution: never compare values of different n.
    """
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (features, reference)]
    return float(calculate_frechet_distance(*moments[0], *moments[1]))


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images of one shape; infinite if they are equal."""
    error = np.square(image.astype(float) - reference.astype(float)).mean()
    return float(np.inf) if error == 0 else float(10 * np.log10(255**2 / error))

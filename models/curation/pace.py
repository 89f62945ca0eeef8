"""Pace of a scene: which of its frames are new pictures, and whether they are evenly spaced in time.

In most videos every frame is a new picture, evenly spaced. In animation on twos or threes, and in videos whose rate was
raised by repeating frames, only the distinct pictures are sampled. In videos of variable frame rate the frames nearest
to even times are.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d

from models.curation.frame_sampling import draw_frames

SAME = 0.05  # mean difference of grey values below which a frame repeats the one before
NOISE = 0.5  # a difference up to this repeats too, where that is ...
CALM = 0.1  # ... at most this share of the largest difference within NEIGHBOURHOOD frames
STEADY_CALM = 0.25  # the same share where no two frames in a row are new: key frames may be coded anew in between
STEADY = 0.95  # share of the pictures that must then be shown for one of two neighbouring numbers of frames
NEIGHBOURHOOD = 7
REPEATING = 0.15  # share of repeats from which they are looked at as a cadence
REGULAR = 0.9  # share of the pictures that must be shown for one of two neighbouring numbers of frames
LONGEST_HOLD = 4  # frames for which a cadence shows a picture, at most
UNEVEN = 1.5  # ratio of the longest to the shortest step above which a rate is uneven
SMOOTHED = 5  # steps over which the rate of a cadence is measured, as it is uneven from step to step


@dataclass(frozen=True)
class Pace:
    """pictures: indices of the distinct frames, rising. hold: mean frames that a picture is shown for.

    even: the pictures are evenly spaced in time; a cadence (hold above 1) is if it is over a few steps.
    """

    pictures: np.ndarray
    hold: float
    even: bool


def find_pace(scene: tuple[int, int], changes: np.ndarray, times: np.ndarray) -> Pace:
    """The pace of a scene (first, end exclusive).

    Args:
        changes: (frames of the video,) mean difference of grey values from the frame before.
        times: (frames of the video,) seconds, NaN where unknown.
    """
    new = _new_pictures(changes[scene[0] : scene[1]])
    pictures = np.arange(*scene)[new]
    hold = len(new) / max(1, new.sum())
    at = times[pictures]
    over = SMOOTHED if hold > 1 else 1
    steps = at[over:] - at[:-over]
    if len(steps) < 2 or not np.isfinite(at).all() or (np.diff(at) <= 0).any():
        return Pace(pictures, hold, True)
    return Pace(pictures, hold, bool(steps.max() <= UNEVEN * steps.min()))


def draw_at_pace(
    pace: Pace, times: np.ndarray, count: int, interval: tuple[int, int], rng: np.random.Generator
) -> tuple[list[int], int]:
    """Draw as `draw_frames` does, among the distinct pictures, and at even times.

    Where frames lie too far apart for that, they are drawn on a beat of the longest usual step.

    Raises:
        Unusable: the scene is too short.
    """
    places, step = draw_frames((0, len(pace.pictures)), count, interval, rng)
    if pace.even:
        return pace.pictures[list(places)].tolist(), step
    at = times[pace.pictures]
    nearest = _nearest(at, np.linspace(at[places[0]], at[places[-1]], count))
    steps = np.diff(at[nearest])
    if steps.max() > UNEVEN * steps.min():
        period = float(np.percentile(np.diff(at), 95))
        beat = np.unique(_nearest(at, np.arange(at[0], at[-1] + period / 2, period)))
        places, step = draw_frames((0, len(beat)), count, interval, rng)
        nearest = beat[list(places)]
    return pace.pictures[nearest].tolist(), step


def _new_pictures(changes: np.ndarray) -> np.ndarray:
    """Which frames of a scene (T,) are no repeats; all, unless repeats come in a regular cadence."""
    largest = maximum_filter1d(changes, NEIGHBOURHOOD) if len(changes) else changes
    steady = changes >= np.maximum(SAME, STEADY_CALM * largest)
    if _is_cadence(steady, STEADY, shortest=2):
        return steady
    new = changes >= np.maximum(SAME, np.minimum(NOISE, CALM * largest))
    return new if _is_cadence(new, REGULAR, shortest=1) else np.ones(len(changes), bool)


def _is_cadence(new: np.ndarray, share: float, shortest: int) -> bool:
    """Pictures are repeated, and that share of them for one of two neighbouring numbers of frames. Sets new[0]."""
    new[:1] = True
    holds = np.diff(np.flatnonzero(new))
    if len(holds) < 2 or 1 - new.mean() < REPEATING:
        return False
    usual = max(shortest, int(holds.mean()))
    return usual <= LONGEST_HOLD and bool(((holds == usual) | (holds == usual + 1)).mean() >= share)


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted time the index of the nearest of `times`, which rise."""
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    return after - (wanted - times[after - 1] < times[after] - wanted)

"""Whether a challenger is better than the champion: two models on the same pictures, strokes and seeds.

Each measure is compared video by video, with both trackers. A negative difference is in the challenger's favour. Its
95 % interval comes from a cluster bootstrap over the pictures, or over the videos of a single picture.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.evaluation.measure import Measured, Motion
from models.evaluation.tables import TrackerPair
from models.metrics import equivalent_pixels, interval

FIDELITY = "first_frame_loss"
PICTURE = "picture"  # stands in the place of a tracker where none measures


class PairedValues(NamedTuple):
    """A measure of n videos, lower is better: the picture of each video, and its value by each tracker."""

    pictures: list[str]
    by_tracker: dict[str, list[float]]


MEASURES: dict[str, tuple[str, Callable[[Motion], float | None]]] = {
    "camera_error_px": ("cam_mc", lambda motion: motion.error.px),
    "camera_lost_share": ("cam_mc", lambda motion: float(motion.error.lost)),
    "object_error_px": ("obj_mc", lambda motion: motion.error.px),
    "object_lost_share": ("obj_mc", lambda motion: float(motion.error.lost)),
    "background_leakage_px": ("obj_mc", lambda motion: motion.background.px if motion.background else None),
    "object_leakage_px": ("scenes", lambda motion: motion.object_alone.px if motion.object_alone else None),
}


def challenge_values(results: Mapping[str, Sequence[Measured]], pair: TrackerPair) -> dict[str, PairedValues]:
    """The measures of one model. Pixels are those of a 384x256 frame.

    Args:
        results: videos by set of cases: `cam_mc` in camera mode, `obj_mc` in object mode, and `scenes`, camera strokes
            on pictures with an object.

    Returns:
        Errors, shares of lost videos and leakage of both modes, and `first_frame_loss`: the negative PSNR in dB.
    """
    values = {}
    for name, (key, measure) in MEASURES.items():
        known = [video for video in results[key] if measure(video.motions[pair.first]) is not None]
        if not known:
            continue
        scale = equivalent_pixels(1.0, known[0].case.first_frame.shape[1]) if name.endswith("_px") else 1.0
        values[name] = PairedValues(
            [video.case.picture for video in known],
            {tracker: [scale * float(measure(video.motions[tracker]) or 0) for video in known] for tracker in pair},
        )
    videos = [video for of_set in results.values() for video in of_set]
    values[FIDELITY] = PairedValues(
        [video.case.picture for video in videos], {PICTURE: [-video.look.psnr for video in videos]}
    )
    return values


def judge_challenge(
    champion: Mapping[str, PairedValues], challenger: Mapping[str, PairedValues], minimum_gain: float, seed: int
) -> dict[str, Any]:
    """Compare two models. A challenger that is equal to the champion is not better.

    A measure is worse if the interval of its difference lies above zero by either tracker. It is better if the interval
    lies below zero by both trackers and the mean falls by `minimum_gain` of the champion's at least. First-frame
    fidelity can be worse only.

    Args:
        champion, challenger: measures of the same videos in the same order.
        minimum_gain: share of the champion's mean, 0 to 1.
        seed: of the bootstrap.

    Returns:
        better: whether nothing is worse and something is better. why: the reason in one sentence. measures: means,
        difference and interval by measure and tracker, with n, `worse` and `better`.
    """
    measures = {
        name: _compared(name, champion[name], challenger[name], minimum_gain, seed)
        for name in champion
        if name in challenger
    }
    worse = [_words(name, entry) for name, entry in measures.items() if entry["worse"]]
    gained = [_words(name, entry) for name, entry in measures.items() if entry["better"]]
    if worse:
        why = f"worse than the champion: {'; '.join(worse)}"
    elif gained:
        why = f"better than the champion: {'; '.join(gained)}; nothing is worse"
    else:
        why = f"not better than the champion: no error or leakage falls by {100 * minimum_gain:g} % by both trackers"
    return {"better": bool(gained) and not worse, "why": why, "measures": measures}


def _compared(name: str, old: PairedValues, new: PairedValues, minimum_gain: float, seed: int) -> dict[str, Any]:
    if old.pictures != new.pictures:
        raise ValueError(f"{name}: champion and challenger were measured on different videos")
    groups = old.pictures if len(set(old.pictures)) > 1 else range(len(old.pictures))
    trackers: dict[str, Any] = {}
    for tracker, before in old.by_tracker.items():
        difference = np.array(new.by_tracker[tracker]) - np.array(before)
        low, high = interval(difference, groups, seed)
        trackers[tracker] = {
            "champion": round(float(np.mean(before)), 4),
            "challenger": round(float(np.mean(new.by_tracker[tracker])), 4),
            "difference": round(float(difference.mean()), 4),
            "ci95": [round(low, 4), round(high, 4)],
        }
    entries = trackers.values()
    return {
        "n": len(old.pictures),
        "worse": any(entry["ci95"][0] > 0 for entry in entries),
        "better": name != FIDELITY
        and all(entry["ci95"][1] < 0 and -entry["difference"] >= minimum_gain * entry["champion"] for entry in entries),
        "trackers": trackers,
    }


def _words(name: str, entry: Mapping[str, Any]) -> str:
    parts = (
        f"{each['champion']:.2f} to {each['challenger']:.2f} ({tracker})" for tracker, each in entry["trackers"].items()
    )
    return f"{name} {', '.join(parts)}"

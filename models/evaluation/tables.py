"""From measured videos to the figures of `metrics/evaluation.json`, as pure functions.

Every figure is measured with the first tracker. The second tracker's figure stands under `second`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from models.evaluation.agreement import ranking_agreement
from models.evaluation.experiment import Case, guided
from models.evaluation.figures import drift_entry, error_entry, following_entry, guidance_entry, look_entry
from models.evaluation.measure import Measured, Motion
from models.metrics import Following, MotionError, still_error

Results = Mapping[str, Mapping[str, list[Measured]]]
FLOORS = ("real", "codec")  # rows for real test clips; they are no methods


class TrackerPair(NamedTuple):
    """The names of the first tracker, which measures, and of the second one, which works by another method."""

    first: str
    second: str


def error_table(results: Mapping[str, list[Measured]], pair: TrackerPair, width: int, seed: int) -> dict[str, Any]:
    """Trajectory errors by method, beside those of a still copy. `width` of the frame in pixels."""
    cases = [video.case for video in next(iter(results.values()))]
    still = [still_error(case.wanted).equivalent(width) for case in cases]
    table = {"still": error_entry(still, _groups(cases), seed)}
    for name, videos in results.items():
        groups = _groups(video.case for video in videos)
        first, second = (
            error_entry([video.motions[tracker].error.equivalent(width) for video in videos], groups, seed)
            for tracker in pair
        )
        table[name] = first | {"second": {key: second[key] for key in ("px", "ci95", "failures")}}
    return table


def agreement(results: Mapping[str, list[Measured]], pair: TrackerPair, seed: int) -> dict[str, Any]:
    """Whether the trackers rank the methods alike."""
    made = {name: videos for name, videos in results.items() if name not in FLOORS}
    first, second = (
        {name: np.array([video.motions[tracker].error.px for video in videos]) for name, videos in made.items()}
        for tracker in pair
    )
    return ranking_agreement(first, second, _groups(video.case for video in next(iter(made.values()))), seed)


def leakage(results: Results, pair: TrackerPair, width: int, seed: int) -> dict[str, Any]:
    """The share of a stroke that object and background follow, in both modes."""
    objects, camera = results["obj_mc"]["object_lora"], results["obj_mc"]["camera_lora"]
    rows: dict[str, tuple[list[Measured], Callable[[Motion], Following | None]]] = {
        "object_mode_object": (objects, lambda motion: motion.strokes),
        "object_mode_background": (objects, lambda motion: motion.background),
        "camera_mode_background": (camera, lambda motion: motion.background),
        "camera_mode_object_alone": (camera, lambda motion: motion.object_alone),
        "camera_strokes_object_alone": (results["scenes"]["camera_lora"], lambda motion: motion.object_alone),
    }
    entries: dict[str, Any] = {}
    for name, (videos, part) in rows.items():
        entries |= _following_entries(name, videos, part, pair, width, seed)
    return entries


def both_table(results: Results, pair: TrackerPair, width: int, seed: int) -> dict[str, Any]:
    """Mode `both` beside the modes alone, on the same pictures and trajectories: errors, and each motion in the other.

    The camera's error is that of the background's points. Alone, the object mode has the same object strokes, and the
    camera mode the same shifts.
    """
    both = results["both"]["both"]
    camera_alone = [video for video in results["scenes"]["camera_lora"] if video.case.stroke is not None]
    errors: dict[str, tuple[list[Measured], Callable[[Motion], MotionError | None]]] = {
        "object": (both, lambda motion: motion.error),
        "object_alone": (results["obj_mc"]["object_lora"], lambda motion: motion.error),
        "camera": (both, lambda motion: motion.background_error),
        "camera_alone": (camera_alone, lambda motion: motion.background_error),
    }
    leaks: dict[str, Callable[[Motion], Following | None]] = {
        "into_object": lambda motion: motion.into_object,
        "into_background": lambda motion: motion.into_background,
    }
    table = {}
    for name, (videos, error) in errors.items():
        known = [video for video in videos if error(video.motions[pair.first]) is not None]
        if not known:
            continue
        first, second = (
            error_entry(
                [found.equivalent(width) for v in known if (found := error(v.motions[t]))],
                _groups(v.case for v in known),
                seed,
            )
            for t in pair
        )
        table[name] = first | {"second": {key: second[key] for key in ("px", "ci95", "failures")}}
    for name, part in leaks.items():
        table |= _following_entries(name, both, part, pair, width, seed)
    return table


def guidance_table(
    results: Mapping[str, list[Measured]], pair: TrackerPair, scales: list[float], seed: int
) -> dict[str, Any]:
    """What l_trajs of Eq. 5 does, by each tracker, on the cases whose background is known.

    Scenes that drift are selected by the tracker that does not measure them, see `guidance_entry`.
    """
    with_background = {
        scale: [video for video in results[method.name] if len(video.case.background)]
        for scale, method in zip(scales, guided(scales), strict=True)
    }
    swapped = (pair, (pair.second, pair.first))
    return {tracker: guidance_entry(with_background, tracker, other, seed) for tracker, other in swapped}


def fidelity(results: Results, seed: int) -> dict[str, Any]:
    """Colour drift and detail of each mode's videos, of real clips through the codec, and of real clips."""
    rows = {
        "camera_lora": results["cam_mc"]["camera_lora"],
        "object_lora": results["obj_mc"]["object_lora"],
        "codec": results["cam_mc"]["codec"] + results["obj_mc"]["codec"],
    }
    real = [video.look for key in ("cam_mc", "obj_mc") for video in results[key]["real"]]
    entries = {
        name: look_entry([v.look for v in videos], _groups(v.case for v in videos), seed)
        for name, videos in rows.items()
    }
    return entries | {"real": drift_entry([look.colour for look in real], [look.detail for look in real])}


def _following_entries(
    name: str,
    videos: list[Measured],
    part: Callable[[Motion], Following | None],
    pair: TrackerPair,
    width: int,
    seed: int,
) -> dict[str, Any]:
    """One entry with both trackers' figures; none if no video has such points."""
    groups = _groups(video.case for video in videos)
    first, second = (
        following_entry([part(video.motions[tracker]) for video in videos], groups, width, seed) for tracker in pair
    )
    if first is None or second is None:
        return {}
    return {name: first | {"second": {key: second[key] for key in ("share", "ci95", "failures")}}}


def _groups(cases: Iterable[Case]) -> list[str]:
    return [case.picture for case in cases]

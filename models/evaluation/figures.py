"""From measured videos to the entries of metrics/evaluation.json: each with its interval, n and failures."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation.measure import Look, Measured
from models.metrics import Following, MotionError, equivalent_pixels, interval, summarise

DRIFTS = 1.0  # pixels at 384x256-equivalent; a background that moves further counts as drifting


def error_entry(errors: Sequence[MotionError], groups: Sequence[Hashable], seed: int) -> dict[str, Any]:
    """Error of one method in pixels at 384x256-equivalent, as `errors` are, and relative to the strokes."""
    px = summarise([error.px for error in errors], [error.lost for error in errors], groups, seed)
    entry = {
        "px": round(px.mean, 4),
        "ci95": _rounded(px.low, px.high),
        "n": px.n,
        "failures": px.failures,
        "px_kept": _rounded(px.kept)[0],
    }
    relative = np.array([error.relative for error in errors])
    if not np.isnan(relative).any():
        entry |= {"relative": round(float(relative.mean()), 4), "relative_ci95": _interval(relative, groups, seed)}
    return entry


def following_entry(
    values: Sequence[Following | None], groups: Sequence[Hashable], width: int, seed: int
) -> dict[str, Any] | None:
    """Share of the stroke and distance in pixels at 384x256-equivalent; None if no video has such points."""
    known = [(value, group) for value, group in zip(values, groups, strict=True) if value is not None]
    if not known:
        return None
    found, groups = [value for value, _ in known], [group for _, group in known]
    share = summarise([value.share for value in found], [value.lost for value in found], groups, seed)
    px = np.array([equivalent_pixels(value.px, width) for value in found])
    return {
        "share": round(share.mean, 4),
        "ci95": _rounded(share.low, share.high),
        "n": share.n,
        "failures": share.failures,
        "share_kept": _rounded(share.kept)[0],
        "px": round(float(px.mean()), 4),
        "px_ci95": _interval(px, groups, seed),
    }


def look_entry(looks: Sequence[Look], groups: Sequence[Hashable], seed: int) -> dict[str, Any]:
    """First-frame fidelity with intervals, and drift by frame."""
    fidelity = {name: np.array([getattr(look, name) for look in looks]) for name in ("psnr", "ssim")}
    return {
        **{name: round(float(values.mean()), 4) for name, values in fidelity.items()},
        **{f"{name}_ci95": _interval(values, groups, seed) for name, values in fidelity.items()},
        **drift_entry([look.colour for look in looks], [look.detail for look in looks]),
    }


def drift_entry(colour: Sequence[np.ndarray], detail: Sequence[np.ndarray]) -> dict[str, Any]:
    """Mean drift by frame of videos of one length."""
    return {
        "colour_drift": _rounded(*np.mean(colour, 0)),
        "detail_kept": _rounded(*np.mean(detail, 0)),
        "n": len(colour),
    }


def guidance_entry(by_scale: Mapping[float, list[Measured]], tracker: str, chosen_by: str, seed: int) -> dict[str, Any]:
    """What l_trajs of Eq. 5 does to scenes with many strokes: drift of the background, motion of the object.

    The figures are given over all scenes, and over those whose background drifts under the lowest scale. These scenes
    are selected with the other tracker. Selecting with the measuring tracker would bias the result: large errors shrink
    by regression to the mean.

    Args:
        by_scale: l_trajs -> the videos of the same cases in the same order.
        tracker: the name of the tracker that measures.
        chosen_by: the name of the tracker that selects the scenes that drift.
    """
    base = min(by_scale)
    drifts = [_drift(video, chosen_by) > DRIFTS for video in by_scale[base]]
    drifting = {
        scale: [video for video, use in zip(videos, drifts, strict=True) if use] for scale, videos in by_scale.items()
    }
    parts = {"all": by_scale, "drifting": drifting}
    return {
        "base": base,
        "drifts_px": DRIFTS,
        **{name: _guidance_part(part, base, tracker, seed) for name, part in parts.items()},
    }


def _guidance_part(by_scale: Mapping[float, list[Measured]], base: float, tracker: str, seed: int) -> dict[str, Any]:
    groups = [video.case.picture for video in by_scale[base]]
    part: dict[str, Any] = {"n": len(groups), "pictures": len(set(groups)), "scales": {}}
    if not groups:
        return part
    kinds: dict[str, Callable[[Measured], float]] = {
        "background_px": lambda video: _drift(video, tracker),
        "object_share": lambda video: _object_share(video, tracker),
    }
    for scale, videos in by_scale.items():
        entry: dict[str, Any] = {"failures": sum(video.motions[tracker].error.lost for video in videos)}
        for kind, value in kinds.items():
            values = np.array([value(video) for video in videos])
            change = values - np.array([value(video) for video in by_scale[base]])
            entry[kind] = {"mean": round(float(values.mean()), 4), "ci95": _interval(values, groups, seed)}
            if scale != base:
                entry[kind] |= {
                    "change": round(float(change.mean()), 4),
                    "change_ci95": _interval(change, groups, seed),
                }
        part["scales"][str(scale)] = entry
    return part


def _drift(video: Measured, tracker: str) -> float:
    """How far the background moves, in pixels at 384x256-equivalent."""
    background = video.motions[tracker].background
    assert background is not None, "cases of many strokes have a background"
    return equivalent_pixels(background.px, video.case.first_frame.shape[1])


def _object_share(video: Measured, tracker: str) -> float:
    """The share of the strokes that the object follows."""
    strokes = video.motions[tracker].strokes
    assert strokes is not None, "many strokes on one object move alike"
    return strokes.share


def _interval(values: np.ndarray, groups: Sequence[Hashable], seed: int) -> list[float | None]:
    return _rounded(*interval(values, groups, seed))


def _rounded(*values: float) -> list[float | None]:
    """Round to four decimals; NaN and infinity become None."""
    return [None if math.isnan(value) else round(float(value), 4) for value in values]

"""Whether a video obeys its strokes: the evaluation's error, stroke by stroke, and the tracks that it comes from."""

import re
from typing import NamedTuple

import numpy as np

from models.comparison.wanted import follow_wanted, wanted_tracks
from models.estimators import load_tracker_of_generated
from models.metrics import trajectory_error
from models.modes import Mode
from models.strokes.stroke import Trajectories

TRACKER = "lucas_kanade"


class StrokeError(NamedTuple):
    """kind: object, pin or camera; number: of the stroke within its kind, from 1; px: mean error at 384 px width, None
    where nothing can be measured; share: of the error of a still video, None for a stroke that rests; lost."""

    kind: str
    number: int
    px: float | None
    share: float | None
    lost: bool


class MeasuredVideo(NamedTuple):
    """errors: one per stroke. wanted, found: tracks (T, N, 2) in pixels of the video, of the strokes seen in it."""

    errors: list[StrokeError]
    wanted: np.ndarray
    found: np.ndarray


def measure_video(video: np.ndarray, drawn: Trajectories, mode: Mode) -> MeasuredVideo:
    """Follow the strokes of a video (T, H, W, 3) uint8 and compare them with what was drawn."""
    height, width = video.shape[1:3]
    strokes = [*drawn.strokes, *drawn.camera_strokes]
    wanted = wanted_tracks(strokes, drawn.canvas, (width, height), len(video))
    found, seen = wanted.tracks, np.ones(wanted.counts.shape, bool)
    if wanted.tracks.shape[1] and len(video) > 1:
        found, seen = follow_wanted(video, wanted, load_tracker_of_generated(TRACKER))
    errors = []
    for n, stroke in enumerate(strokes):
        camera = n >= len(drawn.strokes) or mode == "camera"
        kind = "camera" if camera else "pin" if len(stroke.points) == 1 else "object"
        number = n + 1 if n < len(drawn.strokes) else n + 1 - len(drawn.strokes)
        (column,) = np.nonzero(wanted.numbers == n)
        if not len(column) or not wanted.counts[:, column].any():
            errors.append(StrokeError(kind, number, None, None, False))
            continue
        error = trajectory_error(
            found[:, column], seen[:, column], wanted.tracks[:, column], wanted.counts[:, column]
        ).equivalent(width)
        share = error.relative if error.stroke > 0.5 else None
        errors.append(StrokeError(kind, number, error.px, share, error.lost))
    return MeasuredVideo(errors, wanted.tracks, found)


def errors_as_markdown(errors: list[StrokeError]) -> str:
    """A table of the errors."""
    shown = errors[:40]
    lost = any(each.lost for each in shown)
    lines = ["| stroke | error | share of the stroke |", "|---|---:|---:|"]
    for each in shown:
        px = "not in the frame" if each.px is None else f"{each.px:.1f} px"
        share = "rests" if each.share is None and each.px is not None else ""
        share = f"{100 * each.share:.0f} %" if each.share is not None else share
        mark = f" {'lost' if each.lost else ''} |" if lost else ""
        lines.append(f"| {each.kind} {each.number} | {px} | {share} |{mark}")
    if lost:
        lines[:2] = [f"{lines[0]} tracking |", f"{lines[1]}---|"]
    moving = [each for each in errors if each.share is not None and each.px is not None]
    mean = np.mean([each.px or 0 for each in moving]) if moving else None
    head = (
        f"**Measured error: {mean:.1f} px** at 384 px width, mean of {len(moving)} moving strokes.\n\n"
        if moving
        else ""
    )
    rest = f"\n\n{len(errors) - 40} more strokes are in the file." if len(errors) > 40 else ""
    return head + "\n".join(lines) + rest


def as_plain(text: str) -> str:
    """Text, which may come from another server, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$&])", r"\\\1", text)

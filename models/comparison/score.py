"""Measure the videos of any method with the code of the evaluation: `image-conductor score`.

image-conductor score --videos out/dragnuwa out/ours --trajectories strokes --mode object --output metrics.json
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from models.comparison.videos import Item, find_items
from models.comparison.wanted import follow_wanted, wanted_tracks
from models.estimators import PointTracker
from models.evaluation.agreement import ranking_agreement
from models.evaluation.figures import error_entry
from models.evaluation.look import colour_drift, detail_kept
from models.evaluation.paper import TABLE_1
from models.evaluation.tables import TrackerPair
from models.geometry import Size
from models.metrics import MotionError, still_error, trajectory_error
from models.modes import Lora
from models.strokes.stroke import AUTHORS_CANVAS
from models.strokes.trajectories import load_trajectories
from models.video.read import frame_seconds, read_video

METRICS: dict[Lora, str] = {"camera": "cam_mc", "object": "obj_mc"}
QUOTED = "quoted from the paper's Table 1: other pictures, other trajectories, another tracker; beside, not against"
UNEVEN = 1.5
INTERVAL = "95 %, cluster bootstrap over pictures: the folders that videos are in, or each video where there are none"


def score_videos(
    videos: Sequence[Path],
    trajectories: Path,
    mode: Lora,
    pair: TrackerPair,
    trackers: Mapping[str, PointTracker],
    seed: int = 0,
    canvas: Size = AUTHORS_CANVAS,
) -> dict[str, Any]:
    """Figures of each folder of videos, and of a still copy.

    Strokes are taken from their canvas to a video's frame as `generate` does: scaled to cover it, centre-cropped.
    In mode camera those of the camera, where a file has both. Pixels are those of a 384 wide video; steps at which a
    stroke is hidden or outside the frame are left out. A stroke that enters later is followed from there.

    Args:
        videos, trajectories: see `models.comparison.videos`.
        mode: whether the strokes are the camera's or an object's: CamMC or ObjMC.
        pair: names of the tracker that measures and of the one beside it; `trackers` has both.
        canvas: width and height of the picture that strokes belong to, for formats that do not say it.

    Raises:
        ValueError: files do not match, cannot be read, or no stroke of a video stays in its frame.
    """
    items = find_items(videos, trajectories)
    groups = [item.picture for item in items]
    first, second = pair
    measured = {
        method: [
            _measure(item, method, mode, trackers, canvas) for item in tqdm(items, desc=f"score {method}", unit="video")
        ]
        for method in items[0].videos
    }
    table: dict[str, Any] = {}
    for method, rows in measured.items():
        entries = {name: error_entry([row.errors[name] for row in rows], groups, seed) for name in pair}
        still = error_entry([row.still for row in rows], groups, seed)
        table[method] = entries[first] | {
            "still_px": still["px"],
            "second": {key: entries[second][key] for key in ("px", "ci95", "failures")},
            "colour_drift": round(float(np.mean([row.colour for row in rows])), 4),
            "detail_kept": round(float(np.mean([row.detail for row in rows])), 4),
            "videos": {item.name: row.entry() for item, row in zip(items, rows, strict=True)},
        }
    px_first, px_second = (
        {method: np.array([row.errors[name].px for row in rows]) for method, rows in measured.items()} for name in pair
    )
    metric = METRICS[mode]
    return {
        "metric": metric,
        "methods": table,
        "interval": INTERVAL,
        "trackers": {"first": first, "second": second, **ranking_agreement(px_first, px_second, groups, seed)},
        "paper": {"note": QUOTED, "px": {row.method: getattr(row, metric) for row in TABLE_1}},
    }


def scores_as_text(figures: Mapping[str, Any]) -> str:
    """The figures as text, the paper's beside them."""
    heads = ("method", "px", "95 %", "of still copy", "n", "failures", "kept", "second", "failures")
    lines = [[f"{figures['metric']}: {heads[0]}", *heads[1:]]]
    for name, row in figures["methods"].items():
        kept = "-" if row["px_kept"] is None else f"{row['px_kept']:.2f}"
        interval = "[{:.2f}, {:.2f}]".format(*row["ci95"])
        of_still = f"{row['px'] / row['still_px']:.2f}" if row["still_px"] else "-"
        second = [f"{row['second']['px']:.2f}", str(row["second"]["failures"])]
        lines.append([name, f"{row['px']:.2f}", interval, of_still, str(row["n"]), str(row["failures"]), kept, *second])
    lines += [[f"{name} (quoted)", f"{px:.2f}"] for name, px in figures["paper"]["px"].items()]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(heads))]
    rows = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return "\n".join([*rows, f"(quoted): {figures['paper']['note']}"])


class Scored(NamedTuple):
    """One video: errors by tracker and that of a still copy, in pixels at 384x256-equivalent; colour drift in grey
    levels and detail kept of the last frame against the first."""

    errors: dict[str, MotionError]
    still: MotionError
    colour: float
    detail: float

    def entry(self) -> dict[str, Any]:
        error = next(iter(self.errors.values()))
        return {"px": round(error.px, 4), "still_px": round(self.still.px, 4), "lost": error.lost}


def _check_steps(path: Path) -> None:
    """Raises ValueError for a GIF with unequal frame times, because strokes are spread evenly over frames."""
    if path.suffix.lower() != ".gif":
        return
    seconds = frame_seconds(path)
    if len(seconds) > 1 and max(seconds) > UNEVEN * min(seconds):
        raise ValueError(
            f"a GIF whose {len(seconds)} frames are shown for {min(seconds):g} to {max(seconds):g} s, as where equal "
            "frames were joined; give the video as .mp4"
        )


def _measure(item: Item, method: str, mode: Lora, trackers: Mapping[str, PointTracker], canvas: Size) -> Scored:
    path = item.videos[method]
    try:
        _check_steps(path)
        frames, _ = read_video(path)
        drawn = load_trajectories(item.trajectories, canvas)
        strokes = drawn.camera_strokes if mode == "camera" and drawn.camera_strokes else drawn.strokes_of(mode)
        height, width = frames.shape[1:3]
        wanted = wanted_tracks(strokes, drawn.canvas, (width, height), len(frames))
        still = still_error(wanted.tracks, wanted.counts)
        errors = {
            name: trajectory_error(*follow_wanted(frames, wanted, follow), wanted.tracks, wanted.counts)
            for name, follow in trackers.items()
        }
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Scored(
        {name: error.equivalent(width) for name, error in errors.items()},
        still.equivalent(width),
        float(colour_drift(frames)[-1]),
        float(detail_kept(frames)[-1]),
    )

"""The page reports/curation/index.html and the figures of metrics/curation.json."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.curation.report_table import browser_table, duration_words, funnel_of_sources, size_words
from models.curation.subset import SUBSETS
from models.page import render_page

STEPS = {
    "collect": "file there and readable",
    "decode": "decodes to the end",
    "shape": "not too long and thin",
    "length": "longest scene long enough",
    "duplicate": "no duplicate or near-duplicate",
    "quality": "not black, frozen, dark, blurred or under text",
    "camera": "camera moves as wanted",
    "motion": "not among the least motion",
    "balance": "its camera class not too common",
    "tracks": "tracks good enough",
}
MEASURES = {  # measure: its title, and whether low values are the bad ones
    "motion_score": ("motion score (Frobenius norm, pixels)", True),
    "brightness": ("brightness", True),
    "sharpness": ("sharpness (variance of the Laplacian)", True),
    "seen_middle": ("share of the points seen in the middle frame", True),
    "seen_last": ("share of the points seen in the last frame", True),
    "round_trip": ("miss of points followed back, share of the frame's height", False),
    "own_motion": ("share of the points that move on their own", False),
    "text_share": ("share of the picture under text", False),
    "object_share": ("share of the picture that does not go with the camera", False),
    "black": ("share of black frames", False),
    "frozen": ("share of frozen steps", False),
}
TRACK_MEASURES = ("seen_middle", "seen_last", "round_trip", "own_motion")
SPREADS = ("motion_score", "strength", "object_share", "clip_seconds", *TRACK_MEASURES)
WORST = 5  # kept clips named for each measure
BINS = 16
MOST_REASONS = 30


class Bar(NamedTuple):
    label: str
    kept: int
    dropped: int


class Histogram(NamedTuple):
    """Bars of clips that are kept, and on top of them of those that are dropped."""

    title: str
    bars: list[Bar]

    @property
    def highest(self) -> int:
        return max((bar.kept + bar.dropped for bar in self.bars), default=0)


class CaptionedPicture(NamedTuple):
    """file: relative to the page. lines: what is said beneath it."""

    file: str
    lines: Sequence[str]


class Pictures(NamedTuple):
    """shared: the same footage in two videos, side by side. clip_bytes: of the clips that the page plays."""

    tracks: list[CaptionedPicture]
    draws: list[CaptionedPicture]
    shared: list[CaptionedPicture]
    shared_pairs: int
    clip_bytes: int


def split_figures(rows: pd.DataFrame) -> dict[str, Any]:
    """Numbers of one split.

    Args:
        rows: clips.parquet, with `seconds` and `clip_seconds` from `with_durations`, and `caption_origin`.
    """
    left, funnel = len(rows), {"listed": len(rows)}
    for step in STEPS:
        left -= int((rows["step"] == step).sum())
        funnel[step] = left
    kept = rows[rows["status"] == "kept"]
    return {
        "funnel": funnel,
        "kept": len(kept),
        "hours": {"source": _hours(rows["seconds"]), "kept": _hours(kept["clip_seconds"])},
        **{subset: int((kept["subset"] == subset).sum()) for subset in SUBSETS},
        "captions": {
            str(name): int(count) for name, count in kept["caption_origin"].value_counts().sort_index().items()
        },
        "camera": {str(name): int(count) for name, count in kept["camera"].value_counts().sort_index().items()},
        **{name: _spread(kept[name]) for name in SPREADS},
    }


def with_durations(rows: pd.DataFrame, clip_frames: int) -> pd.DataFrame:
    """The rows with `seconds` of the source and `clip_seconds` that the clip spans of it; NaN where unknown."""
    fps = rows["fps"].where(rows["fps"] > 0).astype(float)
    clip_fps = fps / rows["interval"].astype(float)
    if "clip_fps" in rows:  # measured; uneven or repeated frames make it another
        clip_fps = rows["clip_fps"].where(rows["clip_fps"] > 0).astype(float).fillna(clip_fps)
    return rows.assign(seconds=rows["frames"].astype(float) / fps, clip_seconds=(clip_frames - 1) / clip_fps)


def worst_clips(rows: pd.DataFrame) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """For each of MEASURES the WORST kept clips, the worst first: title, then clip id, video and value of each."""
    kept = rows[rows["status"] == "kept"]
    table = []
    for measure, (title, low_is_bad) in MEASURES.items():
        if measure not in kept:
            continue
        known = kept[kept[measure].notna()]
        worst = known.sort_values([measure, "clip_id"], ascending=[low_is_bad, True])[:WORST]
        if len(worst):
            table.append((title, [(row["clip_id"], row["video"], float(row[measure])) for _, row in worst.iterrows()]))
    return table


def with_track_facts(rows: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """The rows of clips.parquet, with the columns of tracks.parquet; clips dropped for their tracks are marked so."""
    judged = facts.set_index("clip_id")
    kept = rows["status"] == "kept"
    clip_ids = rows["clip_id"].where(kept)
    measures = {name: clip_ids.map(judged[name]) for name in judged.columns if name not in ("status", "reason")}
    dropped = kept & (clip_ids.map(judged["status"]) == "dropped")
    return rows.assign(
        status=rows["status"].mask(dropped, "dropped"),
        step=rows["step"].mask(dropped, "tracks"),
        reason=rows["reason"].mask(dropped, clip_ids.map(judged["reason"])),
        **measures,
    )


def histograms(rows: pd.DataFrame) -> list[Histogram]:
    """Of all videos that were measured: clips first, then their sources."""
    aspect = (rows["width"].astype(float) / rows["height"].astype(float)).round(2)
    return [
        _numbers("motion score (Frobenius norm, pixels)", rows["motion_score"], rows),
        _numbers("seconds that the clip spans", rows["clip_seconds"], rows),
        _names("camera class", rows["camera"], rows),
        _numbers("camera motion, share of the diagonal", rows["strength"], rows),
        _numbers("share of the picture that does not go with the camera", rows["object_share"], rows),
        _numbers("brightness", rows["brightness"], rows),
        _numbers("sharpness (variance of the Laplacian)", rows["sharpness"], rows),
        *(_numbers(MEASURES[name][0], rows[name], rows) for name in TRACK_MEASURES),
        _numbers("seconds of the source video", rows["seconds"], rows),
        _names("resolution", rows["width"].astype("string") + "x" + rows["height"].astype("string"), rows),
        _names("frames per second", rows["fps"].round(2).astype("string"), rows),
        _names("aspect", aspect.astype("string"), rows),
    ]


def reasons(rows: pd.DataFrame) -> list[tuple[str, int, str]]:
    """Kinds of reasons for dropping, the commonest first: reason, how often, an example."""
    dropped = rows[rows["status"] == "dropped"]
    groups = dropped.groupby(dropped["reason"].map(kind_of))
    table = [(str(kind), len(group), str(group.iloc[0]["video"])) for kind, group in groups]
    return sorted(table, key=lambda row: (-row[1], row[0]))[:MOST_REASONS]


def kind_of(reason: str) -> str:
    """A reason without what is particular to one video: what follows a colon, names of files, and numbers."""
    head = re.sub(r"\S+\.\w{2,4}\b", "…", reason.split(":")[0])
    return re.sub(r"\d+(\.\d+)?", "…", head).strip()


def write_curation_report(
    path: Path,
    rows: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Pictures],
) -> None:
    """Write the page, which needs no server.

    Args:
        rows: For each split what `split_figures` takes. Columns `strip` and `clip` have the files that the page shows,
            relative to it; null where there are none.
    """
    page = render_page(
        Path(__file__).with_name("report.html.j2"),
        figures={split: split_figures(part) for split, part in rows.items()},
        charts={split: histograms(part) for split, part in rows.items()},
        why={split: reasons(part) for split, part in rows.items()},
        worst={split: worst_clips(part) for split, part in rows.items()},
        sources={split: funnel_of_sources(part) for split, part in rows.items()},
        table=browser_table(rows),
        pictures=pictures,
        steps=STEPS,
        duration=duration_words,
        size=size_words,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _numbers(title: str, values: pd.Series, rows: pd.DataFrame) -> Histogram:
    """BINS equal bins from the least value to the 99th percentile; what is above that is in the last one."""
    known = values.dropna().astype(float)
    if known.empty:
        return Histogram(title, [])
    low, high = float(known.min()), float(known.quantile(0.99))
    if low >= high:
        return _names(title, known.map("{:.4g}".format), rows)
    edges = np.linspace(low, high, BINS + 1)
    place = np.clip(np.digitize(known, edges) - 1, 0, BINS - 1)
    kept = (rows.loc[known.index, "status"] == "kept").to_numpy()
    bars = [
        Bar(f"{edges[i]:.3g}", int((kept & (place == i)).sum()), int((~kept & (place == i)).sum())) for i in range(BINS)
    ]
    return Histogram(title, bars)


def _names(title: str, values: pd.Series, rows: pd.DataFrame) -> Histogram:
    """The BINS commonest values, the others together."""
    known = values.dropna()
    common = list(known.value_counts().index[: BINS - 1])
    named = known.where(known.isin(common), "others")
    kept = rows.loc[known.index, "status"] == "kept"
    bars = []
    for name in [*sorted(common), "others"]:
        here = named == name
        if here.any():
            bars.append(Bar(str(name), int((here & kept).sum()), int((here & ~kept).sum())))
    return Histogram(title, bars)


def _hours(seconds: pd.Series) -> float:
    return round(float(seconds.sum()) / 3600, 6)


def _spread(values: pd.Series) -> dict[str, float] | None:
    known = values.dropna().astype(float)
    if known.empty:
        return None
    return {f"p{share:02d}": round(float(known.quantile(share / 100)), 4) for share in (5, 50, 95)}

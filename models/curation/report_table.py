"""The table of the curation report: every clip and every video without one, for a page that sorts and filters it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

FIRST_COLUMNS = ("split", "status", "subset", "step", "reason", "video", "clip_id", "seconds", "clip_seconds", "scene")
FILES = ("strip", "clip")  # columns of paths relative to the page; null where there is no picture
MOST_ROWS = 20_000  # of all splits; more, a page that browsers open slowly
MOST_SOURCES = 40
DIGITS = 4  # significant ones of a number on the page
_LEFT_OUT = {"scene_start", "scene_end"}  # `scene` says them


def browser_table(splits: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Columns and rows as JSON takes them, the dropped first; `left_out` counts rows beyond MOST_ROWS.

    Args:
        splits: For each split the rows of clips.parquet, with `seconds` and `clip_seconds`; further columns are shown
            after FIRST_COLUMNS, those of FILES as pictures and clips.
    """
    rows = pd.concat([rows.assign(split=name) for name, rows in splits.items()], ignore_index=True)
    rows = rows.assign(scene=_scenes(rows)).drop(columns=[name for name in _LEFT_OUT if name in rows])
    rows = rows.sort_values(["status", "split", "video"], kind="stable")
    columns = [*FIRST_COLUMNS, *(name for name in rows.columns if name not in (*FIRST_COLUMNS, *FILES)), *FILES]
    shown = rows.reindex(columns=columns).astype(object).head(MOST_ROWS)
    values = [[_plain(value) for value in row] for row in shown.itertuples(index=False)]
    return {"columns": columns, "rows": values, "left_out": len(rows) - len(values)}


def funnel_of_sources(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """For each folder that videos come from: `source`, `listed`, `kept`, `dropped` (step -> rows); largest first."""
    folders = rows["video"].map(lambda video: video.rpartition("/")[0].partition("/")[0] or "(no folder)")
    table: list[dict[str, Any]] = []
    for source, part in rows.groupby(folders):
        steps = {str(step): int(count) for step, count in part["step"].value_counts().items()}
        kept = int((part["status"] == "kept").sum())
        table.append({"source": str(source), "listed": len(part), "kept": kept, "dropped": steps})
    return sorted(table, key=lambda row: (-row["listed"], row["source"]))[:MOST_SOURCES]


def duration_words(seconds: float) -> str:
    """Seconds in the unit that fits: s, min or h."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def size_words(count: float) -> str:
    """Bytes in the unit that fits, of 1000 each."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _scenes(rows: pd.DataFrame) -> pd.Series:
    """First and last frame of each scene, as words."""
    known = rows["scene_start"].notna() & rows["scene_end"].notna()
    words = rows["scene_start"].astype("string") + " to " + (rows["scene_end"] - 1).astype("string")
    return words.where(known).astype(object)


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.{DIGITS}g}")
    return int(value) if isinstance(value, np.integer) else value

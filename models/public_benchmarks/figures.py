"""From finished cases to figures.json, and to a table that people read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.metrics import interval
from models.public_benchmarks.quoted import NOTE, PICTURE_SIZES, QUOTED_FIGURES, Benchmark

MEASURE = (
    "mean distance in pixels between wanted and tracked points, over visible steps after the first; then over cases"
)
FIGURES = ("px", "px_384", "still", "object_px", "lost")


def benchmark_figures(
    benchmark: Benchmark, entries: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Means over cases with 95 % intervals of a bootstrap over cases, the cases, and what other papers print."""
    measured = [entry for entry in entries if "skipped" not in entry]
    means = {}
    for name in FIGURES:
        values = np.array([entry[name] for entry in measured if entry[name] is not None], float)
        if len(values):
            low, high = interval(values, range(len(values)), 0)
            ci95 = [round(low, 4), round(high, 4)]
            means[name] = {"mean": round(float(values.mean()), 4), "ci95": ci95, "n": len(values)}
    return {
        "benchmark": benchmark,
        "measure": MEASURE,
        "epe": means,
        "cases": len(entries),
        "skipped": {entry["name"]: entry["skipped"] for entry in entries if "skipped" in entry},
        "settings": dict(settings),
        "quoted": {"note": NOTE, "figures": [figure._asdict() for figure in QUOTED_FIGURES[benchmark]]},
        "videos": {entry["name"]: {key: entry[key] for key in (*FIGURES, "steps")} for entry in measured},
    }


def benchmark_as_text(figures: Mapping[str, Any]) -> str:
    """The table: ours first, then the quoted figures, marked as such."""
    epe, at = figures["epe"], f"EPE, px at {PICTURE_SIZES[figures['benchmark']]}"
    rows = [
        ("this model", at, _value(epe.get("px"))),
        ("this model", "EPE, px at 384x256", _value(epe.get("px_384"))),
        ("this model, points on objects", at, _value(epe.get("object_px"))),
        ("this model", "share of steps that the tracker lost", _value(epe.get("lost"))),
        ("a still copy of the picture", at, _value(epe.get("still"))),
    ]
    rows += [(f"{row['method']} (quoted)", row["measure"], f"{row['value']:g}") for row in figures["quoted"]["figures"]]
    head = (f"{figures['benchmark']}: {figures['cases']} cases", "measure", "value")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(2)]
    lines = [f"{row[0].ljust(widths[0])}  {row[1].ljust(widths[1])}  {row[2]}".rstrip() for row in (head, *rows)]
    if figures["quoted"]["figures"]:
        sources = dict.fromkeys(row["source"] for row in figures["quoted"]["figures"])
        lines += [f"({figures['quoted']['note']})", *(f"  from {source}" for source in sources)]
    lines += [f"left out: {name}: {reason}" for name, reason in figures["skipped"].items()]
    return "\n".join(lines)


def _value(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    return "{:.2f} [{:.2f}, {:.2f}], n {}".format(entry["mean"], *entry["ci95"], entry["n"])

"""The page reports/curation/index.html: what became of the raw videos, and what the curated clips look like."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
import torch
from torchvision.utils import flow_to_image

from models.drawing import draw_tracks
from models.flow_maps import flow_map

BINS = 12


class Bar(NamedTuple):
    """A histogram's bar: its range, and how many of the values lie in it."""

    low: float
    high: float
    values: int


def funnel(clips: pd.DataFrame) -> list[tuple[str, int]]:
    """How many videos came in, how many were dropped for which kind of reason, most first, and how many are left.

    Args:
        clips: one row per video, with `status` and `reason`. Reasons that differ in numbers or names are one kind.
    """
    dropped = clips.loc[clips["status"] == "dropped", "reason"].map(kind_of).value_counts()
    kept = int((clips["status"] == "kept").sum())
    return [("raw videos", len(clips)), *((kind, -int(n)) for kind, n in dropped.items()), ("kept", kept)]


def kind_of(reason: str) -> str:
    """A reason without what is particular to one video: what follows a colon, names of files, and numbers."""
    head = re.sub(r"\S+\.\w{2,4}\b", "…", reason.split(":")[0])
    return re.sub(r"\d+(\.\d+)?", "…", head).strip()


def histogram(values: Sequence[float]) -> list[Bar]:
    """Bars of equal width over the values' range; none without values."""
    if len(values) == 0:
        return []
    counts, edges = np.histogram(np.asarray(values, float), BINS)
    return [Bar(low, high, int(n)) for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)]


def sparse_draw(frames: np.ndarray, tracks: np.ndarray, visibility: np.ndarray, scale: int) -> np.ndarray:
    """A sparse draw and the flow map that it becomes, beside each other: video (T, scale H, 2 scale W, 3) uint8.

    Args:
        frames: (T, H, W, 3) uint8.
        tracks, visibility: (T, n, 2) pixels and (T, n).
    """
    height, width = frames.shape[1:3]
    maps = flow_map(torch.from_numpy(tracks)[None], torch.from_numpy(visibility)[None], height, width)[0]
    coloured = flow_to_image(maps.transpose(0, 1).contiguous()).permute(0, 2, 3, 1).numpy()
    large = coloured.repeat(scale, axis=1).repeat(scale, axis=2)
    return np.concatenate([draw_tracks(frames, tracks, scale), large], axis=2)


def write_report(path: Path, splits: list[dict[str, Any]], throughput: list[dict[str, Any]]) -> None:
    """Write the page.

    Args:
        splits: one for each split: `name`, `funnel`, `histograms` by title, and `pictures`, section -> (title, file).
        throughput: rows of `stage`, `seconds` and `per_second`.
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html.j2").render(splits=splits, throughput=throughput)
    path.write_text(page, encoding="utf-8")

"""What curation did, of both splits: `python -m stages.curation_report`.

Writes metrics/curation.json and reports/curation/index.html.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from models.curation import pictures
from models.curation.report import (
    CaptionedPicture,
    Pictures,
    histograms,
    reasons,
    split_figures,
    with_durations,
    with_track_facts,
    worst_clips,
    write_curation_report,
)
from stages.data.arrays import read_draws, read_tracks
from stages.data.curated import curated_clips
from stages.data.footage import read_clip
from stages.data.items import write_atomically
from stages.data.paths import clip_videos
from stages.data.tables import read_clips, read_track_facts
from stages.params import SPLITS, Params, Split
from stages.run.command import run_stage
from stages.run.timing import THROUGHPUT_FILE

METRICS = Path("metrics/curation.json")
REPORT = Path("reports/curation")
QUALITY = 85  # of JPEG


def run(params: Params) -> None:
    shutil.rmtree(REPORT, ignore_errors=True)
    figures: dict[str, Any] = {}
    charts: dict[str, Any] = {}
    why: dict[str, Any] = {}
    worst: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for split in SPLITS:
        rows = with_track_facts(read_clips(split), read_track_facts(split))
        rows = with_durations(rows, params.video.clip_frames)
        figures[split], charts[split], why[split] = split_figures(rows), histograms(rows), reasons(rows)
        worst[split] = worst_clips(rows)
        shown[split] = draw_split(split, rows, params)
    write_atomically(METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    throughput = json.loads(THROUGHPUT_FILE.read_text(encoding="utf-8")) if THROUGHPUT_FILE.exists() else {}
    write_curation_report(REPORT / "index.html", figures, charts, why, worst, shown, throughput)


def draw_split(split: Split, rows: pd.DataFrame, params: Params) -> Pictures:
    """Draw the pictures of a split below REPORT, of clips spread over the motion scores."""
    settings, videos = params.curation_report, clip_videos(split)
    kept = _spread(rows[rows["status"] == "kept"], settings.sheets)
    waiting = rows[(rows["status"] == "dropped") & rows["clip_id"].isin(videos.ids())]
    examples = _spread(kept, settings.examples)
    parts = {clip.clip_id: clip for clip in curated_clips(split)} if len(examples) else {}
    tracks, draws = [], []
    for row in examples.itertuples():
        clip = parts[row.clip_id]
        frames, points, visibility = read_clip(clip.video), *read_tracks(clip.tracks)
        sheet = pictures.tracks_sheet(frames, points, visibility)
        tracks.append(_save(sheet, f"{split}-tracks-{row.clip_id}.jpg", [row.video, f"camera: {row.camera}"]))
        drawn = pictures.draws_sheet(frames[0], points, visibility, read_draws(clip.draws))
        draws.append(_save(drawn, f"{split}-draws-{row.clip_id}.jpg", [row.video, clip.caption]))
    return Pictures(
        kept=[_strip(split, row, videos.path(row.clip_id)) for row in kept.itertuples()],
        dropped=[
            _strip(split, row, videos.path(row.clip_id)) for row in _spread(waiting, settings.sheets).itertuples()
        ],
        tracks=tracks,
        draws=draws,
    )


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Up to `count` rows, evenly over the motion scores."""
    ordered = rows.sort_values(["motion_score", "clip_id"])
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))]


def _strip(split: Split, row: Any, video: Path) -> CaptionedPicture:
    measures = f"motion {row.motion_score:.0f}, camera: {row.camera}, interval {row.interval}"
    lines = [row.video, measures, row.treatment or "", row.reason]
    return _save(pictures.strip(read_clip(video)), f"{split}-{row.clip_id}.jpg", lines)


def _save(image: Image.Image, name: str, lines: list[str]) -> CaptionedPicture:
    folder = REPORT / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, quality=QUALITY)
    return CaptionedPicture(f"pictures/{name}", [line for line in lines if line])


if __name__ == "__main__":
    run_stage("stages.curation_report")

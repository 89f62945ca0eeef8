"""A page about the curated data: `python -m stages.curation_report` writes reports/curation/index.html."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from models.curation.report import funnel, histogram, sparse_draw, write_report
from models.drawing import contact_sheet, draw_tracks
from models.video import encode_gif, read_video
from stages.contracts import (
    ContractError,
    CuratedClip,
    clips_folder,
    curated_clips,
    read_clips,
    read_draws,
    read_tracks,
)
from stages.items import write_atomically
from stages.params import SPLITS, Params, ParamsError, Split, load_params
from stages.tracking import TIMING_FILE

REPORT = Path("reports/curation")
STAGES = ("collect", "clips", "captions", "tracks", "sparse_flows")
HEIGHT = 160  # of a shown frame, pixels, about


def run(params: Params) -> None:
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.mkdir(parents=True)
    tables = {split: read_clips(split) for split in SPLITS}
    write_report(
        REPORT / "index.html",
        [
            {
                "name": split,
                "funnel": funnel(table),
                "histograms": histograms(table),
                "pictures": pictures(split, table, params),
            }
            for split, table in tables.items()
        ],
        throughput({split: len(table) for split, table in tables.items()}),
    )


def histograms(clips: pd.DataFrame) -> dict[str, list]:
    """Of all clips that were measured, the dropped ones too."""
    measured = clips[clips["motion_score"].notna()]
    seconds = (measured["scene_end"] - measured["scene_start"]) / measured["fps"]
    return {
        "motion score": histogram(measured["motion_score"]),
        "length of the scene, seconds": histogram(seconds.dropna()),
        "frame interval": histogram(measured["interval"].dropna()),
        "width of the raw video, pixels": histogram(measured["width"].dropna()),
    }


def pictures(split: Split, table: pd.DataFrame, params: Params) -> dict[str, list[tuple[str, str]]]:
    """Contact sheets and moving pictures of clips spread over the motion scores; section -> (title, file)."""
    shown = params.curation_report
    clips = {clip.clip_id: clip for clip in curated_clips(split)}
    kept = _spread(table[table["clip_id"].isin(clips)], shown.sheets)
    low = table[[(clips_folder(split) / "dropped" / f"{clip_id}.mp4").exists() for clip_id in table["clip_id"]]]
    dropped = [(row, clips_folder(split) / "dropped" / f"{row.clip_id}.mp4") for row in _spread(low, shown.sheets)]
    scale = max(1, round(HEIGHT / params.video.height))
    moving = [clips[row.clip_id] for row in _spread(table[table["clip_id"].isin(clips)], shown.animations)]
    return {
        "Kept, motion rising": [
            _sheet(f"{split}-kept-{row.clip_id}", clips[row.clip_id].video, _score(row)) for row in kept
        ],
        "Dropped for little motion": [
            _sheet(f"{split}-dropped-{row.clip_id}", video, f"{_score(row)}; {row.reason}") for row, video in dropped
        ],
        "Tracks": [_tracks(split, clip, scale) for clip in moving],
        "Sparse draws, and the flow maps that they become": [_draw(split, clip, scale) for clip in moving],
    }


def throughput(videos: dict[Split, int]) -> list[dict[str, Any]]:
    """Seconds and videos per second of each curation stage's last run."""
    known = json.loads(TIMING_FILE.read_text(encoding="utf-8")) if TIMING_FILE.exists() else {}
    rows = []
    for stage in STAGES:
        for split, count in videos.items():
            if seconds := known.get(f"{stage}@{split}"):
                rows.append({"stage": f"{stage}, {split}", "seconds": seconds, "per_second": count / seconds})
    return rows


def _spread(rows: pd.DataFrame, count: int) -> list[Any]:
    """Up to `count` rows, evenly over the motion scores."""
    ordered = rows.sort_values(["motion_score", "clip_id"])
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    return list(ordered.iloc[chosen].itertuples())


def _score(row: Any) -> str:
    return f"{row.video}: motion score {row.motion_score:.0f}"


def _sheet(name: str, video: Path, title: str) -> tuple[str, str]:
    sheet = Image.fromarray(contact_sheet([read_video(video)[0]]))
    sheet.thumbnail((560, HEIGHT))
    sheet.save(REPORT / f"{name}.jpg", quality=88)
    return title, f"{name}.jpg"


def _tracks(split: Split, clip: CuratedClip, scale: int) -> tuple[str, str]:
    tracks, visibility = read_tracks(clip.tracks)
    shown = np.flatnonzero(visibility.all(0))[::2]
    video = draw_tracks(read_video(clip.video)[0], tracks[:, shown], scale)
    return _animated(f"{split}-tracks-{clip.clip_id}", video, clip.caption or clip.clip_id)


def _draw(split: Split, clip: CuratedClip, scale: int) -> tuple[str, str]:
    tracks, visibility = read_tracks(clip.tracks)
    chosen = read_draws(clip.draws)[0]
    chosen = chosen[chosen >= 0]
    video = sparse_draw(read_video(clip.video)[0], tracks[:, chosen], visibility[:, chosen], scale)
    return _animated(f"{split}-draw-{clip.clip_id}", video, f"{len(chosen)} of {tracks.shape[1]} tracks")


def _animated(name: str, video: np.ndarray, title: str) -> tuple[str, str]:
    write_atomically(REPORT / f"{name}.gif", encode_gif(video[::2], fps=6))
    return title, f"{name}.gif"


def main() -> None:
    try:
        run(load_params())
    except (ParamsError, ContractError) as error:
        sys.exit(f"curation_report: {error}")
    print(f"curation_report: {REPORT / 'index.html'}")


if __name__ == "__main__":
    main()

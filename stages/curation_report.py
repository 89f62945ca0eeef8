"""What curation did, of both splits: `python -m stages.curation_report`.

Writes metrics/curation.json and reports/curation/index.html, which opens from disk with all that lies beside it.
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
    split_figures,
    with_durations,
    with_track_facts,
    write_curation_report,
)
from models.video.decode import Noticed
from models.video.read import read_frames, read_info
from stages.data.arrays import read_draws, read_tracks
from stages.data.curated import curated_clips
from stages.data.footage import read_clip
from stages.data.items import write_atomically
from stages.data.paths import captions_file, clip_videos, videos_folder
from stages.data.shards import read_item
from stages.data.tables import CAPTIONS, read_clips, read_manifest, read_shared, read_table, read_track_facts
from stages.params import SPLITS, Params, Split
from stages.run.command import run_stage

METRICS = Path("metrics/curation.json")
REPORT = Path("reports/curation")
QUALITY = 85  # of JPEG
PAIR_HEIGHT = 180  # pixels; of the frames of videos that share footage


def run(params: Params) -> None:
    shutil.rmtree(REPORT, ignore_errors=True)
    rows: dict[str, pd.DataFrame] = {}
    shown: dict[str, Pictures] = {}
    for split in SPLITS:
        measured = with_track_facts(read_clips(split), read_track_facts(split))
        captions = read_table(captions_file(split), CAPTIONS).set_index("clip_id")
        named = measured["clip_id"].where(measured["status"] == "kept")
        measured = measured.assign(
            caption=named.map(captions["caption"]),
            caption_origin=named.map(captions["origin"]),
            shared_with=measured["video"].map(_others(read_shared(split))),
        )
        rows[split], clip_bytes = _with_files(split, with_durations(measured, params.video.clip_frames), params)
        shown[split] = draw_split(split, rows[split], params, clip_bytes)
    figures = {split: split_figures(part) for split, part in rows.items()}
    write_atomically(METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    write_curation_report(REPORT / "index.html", rows, shown)


def _others(pairs: pd.DataFrame) -> dict[str, str]:
    """For each video those that share footage with it, as words."""
    both = pd.concat([pairs, pairs.rename(columns={"video": "other", "other": "video"})])
    return {str(video): ", ".join(sorted(part["other"])) for video, part in both.groupby("video")}


def draw_split(split: Split, rows: pd.DataFrame, params: Params, clip_bytes: int) -> Pictures:
    """Draw the pictures of a split below REPORT, of clips spread over the motion scores."""
    settings = params.curation_report
    examples = _spread(rows[rows["status"] == "kept"], settings.examples)
    parts = {clip.clip_id: clip for clip in curated_clips(split)} if len(examples) else {}
    tracks, draws = [], []
    for row in examples.itertuples():
        clip = parts[row.clip_id]
        frames, points, visibility = read_clip(clip.video), *read_tracks(clip.tracks)
        sheet = pictures.tracks_sheet(frames, points, visibility)
        tracks.append(_captioned(sheet, f"{split}-tracks-{row.clip_id}.jpg", [row.video, f"camera: {row.camera}"]))
        drawn = pictures.draws_sheet(frames[0], points, visibility, read_draws(clip.draws))
        draws.append(_captioned(drawn, f"{split}-draws-{row.clip_id}.jpg", [row.video, clip.caption]))
    pairs = read_shared(split)
    shared = [_pair(split, index, row) for index, row in enumerate(pairs.head(settings.pairs).itertuples())]
    return Pictures(tracks, draws, shared, len(pairs), clip_bytes)


def _with_files(split: Split, rows: pd.DataFrame, params: Params) -> tuple[pd.DataFrame, int]:
    """The rows with columns `strip` and `clip`, after these files were written; and the bytes of the clips."""
    videos, made, clip_bytes = clip_videos(split), clip_videos(split).ids(), 0
    strips: dict[str, str] = {}
    clips: dict[str, str] = {}
    for clip_id in _spread(rows[rows["clip_id"].isin(made)], params.curation_report.clips)["clip_id"]:
        path, data = videos.path(clip_id), read_item(videos.path(clip_id))
        clips[clip_id] = f"clips/{clip_id[:2]}/{split}-{clip_id}.mp4"
        write_atomically(REPORT / clips[clip_id], data)
        strips[clip_id] = _save(pictures.strip(read_clip(path)), f"{split}-{clip_id}.jpg")
        clip_bytes += len(data)
    return rows.assign(strip=rows["clip_id"].map(strips), clip=rows["clip_id"].map(clips)), clip_bytes


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Up to `count` rows, evenly over the motion scores."""
    ordered = rows.sort_values(["motion_score", "clip_id"])
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))]


def _pair(split: Split, index: int, row: Any) -> CaptionedPicture:
    """The same picture in two videos."""
    frames = [_frame(split, row.video, row.frame), _frame(split, row.other, row.other_frame)]
    share = f"{row.share:.0%} of a scene's frames, both {row.subset}"
    lines = [f"{row.video}, frame {row.frame}", f"{row.other}, frame {row.other_frame}", share]
    return _captioned(pictures.pair_sheet(*frames), f"{split}-shared-{index}.jpg", lines)


def _frame(split: Split, video: str, index: int) -> np.ndarray:
    row = read_manifest(split).set_index("video").loc[video]
    span = None if pd.isna(row["start"]) else (row["start"], row["end"])
    file = videos_folder(split) / row["file"]
    info = read_info(file)
    size = max(1, round(info.width * PAIR_HEIGHT / info.height)), PAIR_HEIGHT
    return next(read_frames(file, size, [index], span, Noticed()))


def _captioned(image: Image.Image, name: str, lines: list[str]) -> CaptionedPicture:
    return CaptionedPicture(_save(image, name), [line for line in lines if line])


def _save(image: Image.Image, name: str) -> str:
    """Write a picture; return its path relative to the page."""
    folder = REPORT / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, quality=QUALITY)
    return f"pictures/{name}"


if __name__ == "__main__":
    run_stage("stages.curation_report")

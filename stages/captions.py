"""Captions of the kept clips (Sec 2.2, step 1): the video's own, or a captioner's where it has none.

python -m stages.captions --split camera        # writes data/captions/camera.parquet
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.curation.captioning import describe_clip
from models.estimators import load_estimator
from stages.data.footage import read_clip
from stages.data.items import model_by_content, recipe, remove_leftovers
from stages.data.paths import captions_file, clip_videos
from stages.data.tables import (
    CAPTIONS,
    SaveNow,
    read_clips,
    read_manifest,
    read_table,
    recipe_of_table,
    write_table,
)
from stages.params import CaptionsParams, Params, Split
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items


@dataclass(frozen=True)
class CaptionJob:
    """One clip to describe."""

    clip_id: str
    file: Path
    settings: CaptionsParams


def run(split: Split, params: Params) -> None:
    settings, path, made_by = params.captions, captions_file(split), ""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    manifest = read_manifest(split)
    given = dict(zip(manifest["video"], manifest["caption"], strict=True))
    clips = read_clips(split).query("status == 'kept'")
    rows = {
        row.clip_id: _row(row.clip_id, given[row.video], "source" if given[row.video] else "none")
        for row in clips[["clip_id", "video"]].itertuples()
    }
    if settings.estimator != "none":
        made_by = recipe(code_of(describe, params), model=model_by_content(settings.model))
        described = _described_before(path, settings.model) if recipe_of_table(path) == made_by else {}
        without = [clip_id for clip_id, row in rows.items() if not row["caption"]]
        rows |= {clip_id: described[clip_id] for clip_id in without if clip_id in described}
        videos = clip_videos(split)
        items = [CaptionJob(i, videos.path(i), settings) for i in without if i not in described]
        results = map_items(describe, items, params.compute, f"captions@{split}", _crashed, one_per_accelerator=True)
        save = SaveNow(least=50)
        for row in results:
            rows[row["clip_id"]] = row
            if save(len(rows)):
                _write(path, rows, made_by)
    _write(path, rows, made_by)


def describe(item: CaptionJob) -> dict[str, Any]:
    """Describe a clip with the model; return its row."""
    captioner = load_estimator("captions", item.settings.estimator, model=item.settings.model)
    caption = describe_clip(read_clip(item.file), captioner)
    return _row(item.clip_id, caption, item.settings.model if caption else "none")


def _row(clip_id: str, caption: str, origin: str) -> dict[str, Any]:
    return {"clip_id": clip_id, "caption": caption, "origin": origin}


def _crashed(item: CaptionJob) -> dict[str, Any]:
    return _row(item.clip_id, "", "none")


def _described_before(path: Path, model: str) -> dict[str, dict[str, Any]]:
    """Rows of the captions that the model has written, wherever it lay then."""
    rows = read_table(path, CAPTIONS)
    written = rows[~rows["origin"].isin(["source", "none"])]
    return {row["clip_id"]: row | {"origin": model} for row in written.to_dict("records")}


def _write(path: Path, rows: dict[str, dict[str, Any]], made_by: str) -> None:
    write_table(path, [rows[clip_id] for clip_id in sorted(rows)], CAPTIONS, made_by)


if __name__ == "__main__":
    run_stage("stages.captions")

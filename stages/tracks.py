"""Point tracks on a grid over each kept clip (Sec 2.2, step 4): data/tracks/<split>/shard-*.zip with <clip_id>.npz.

    python -m stages.tracks --split mixed

`tracks.parquet` beside them says how good the tracks are, and which clips are dropped for them. Limits are applied to
what was measured, so another limit tracks no clip again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import geometry
from models.curation.track_facts import TrackFacts, TrackLimits, hide_drifted, measure_tracks, misses, why_unusable
from models.estimators import load_estimator
from stages.data.arrays import write_tracks
from stages.data.footage import read_clip
from stages.data.items import by_content, recipe
from stages.data.paths import clip_videos, tracks_file, tracks_folder
from stages.data.tables import TRACKS, SaveNow, read_clips, read_table, recipe_of_table, write_table
from stages.params import Params, Split
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items


@dataclass(frozen=True)
class TrackJob:
    """One clip to track points in."""

    clip_id: str
    clip: Path
    output: Path
    estimator: str
    options: dict[str, Any]
    grid: int
    round_trip: bool
    hide_drifted: float | None


def run(split: Split, params: Params) -> None:
    settings, folder, videos = params.tracks, tracks_folder(split), clip_videos(split)
    made_by = recipe(
        code_of(track_clip, params),
        tracks=settings.model_dump(exclude={"limits", "cotracker"}),
        options=by_content(settings.options()),
    )
    kept = list(read_clips(split).query("status == 'kept'")["clip_id"])
    missing = folder.prepare(kept, made_by)
    before = _measured_before(tracks_file(split), made_by)
    measured = {clip_id: before[clip_id] for clip_id in set(kept) - set(missing) if clip_id in before}
    how = settings.estimator, settings.options(), settings.grid, settings.round_trip, settings.hide_drifted
    items = [
        TrackJob(clip_id, videos.path(clip_id), folder.path(clip_id), *how)
        for clip_id in kept
        if clip_id not in measured
    ]
    limits = _limits(split, params)
    neural = params.is_neural("tracks")
    results = map_items(track_clip, items, params.compute, f"tracks@{split}", _crashed, neural)
    save = SaveNow(least=500)
    for clip_id, facts in results:
        measured[clip_id] = facts
        if save(len(measured)):
            _write(tracks_file(split), measured, limits, made_by)
    _write(tracks_file(split), measured, limits, made_by)
    folder.pack(kept)


def track_clip(item: TrackJob) -> tuple[str, TrackFacts]:
    """Follow the grid of points through a clip and write their tracks; return how good they are."""
    track = load_estimator("tracks", item.estimator, **item.options)
    frames = read_clip(item.clip)
    height, width = frames.shape[1:3]
    tracks, visibility = track(frames, geometry.point_grid(width, height, item.grid))
    missed = misses(frames, tracks, track) if item.round_trip and visibility[-1].any() else None
    if missed is not None and item.hide_drifted is not None:
        visibility = hide_drifted(visibility, missed, item.hide_drifted)
    write_tracks(item.output, tracks, visibility)
    return item.clip_id, measure_tracks(tracks, visibility, height, missed)


def _crashed(item: TrackJob) -> tuple[str, TrackFacts]:
    raise RuntimeError(
        f"{item.clip}: tracking it ended its process, most likely for lack of memory; lower compute.workers"
    )


def _limits(split: Split, params: Params) -> TrackLimits:
    limits = params.tracks.limits
    return TrackLimits(**limits.model_dump(exclude={"max_own_motion"}), max_own_motion=limits.max_own_motion[split])


def _measured_before(path: Path, made_by: str) -> dict[str, TrackFacts]:
    if recipe_of_table(path) != made_by:
        return {}
    rows = read_table(path, TRACKS).drop(columns=["status", "reason"]).set_index("clip_id").astype(object)
    known = rows.where(rows.notna(), None)
    return {str(clip_id): TrackFacts(**row) for clip_id, row in known.to_dict("index").items()}


def _write(path: Path, measured: Mapping[str, TrackFacts], limits: TrackLimits, made_by: str) -> None:
    rows: list[dict[str, Any]] = []
    for clip_id, facts in sorted(measured.items()):
        reason = why_unusable(facts, limits)
        status = "dropped" if reason else "kept"
        rows.append({"clip_id": clip_id, "status": status, "reason": reason} | vars(facts))
    write_table(path, rows, TRACKS, made_by)


if __name__ == "__main__":
    run_stage("stages.tracks")

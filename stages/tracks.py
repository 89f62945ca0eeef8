"""Point tracks on a grid over each kept clip (Sec 2.2, step 4): data/tracks/<split>/shard-*.zip with <clip_id>.npz.

python -m stages.tracks --split mixed
"""

from dataclasses import dataclass
from pathlib import Path

from models import geometry
from models.estimators import load_estimator
from models.video import read
from stages.data.arrays import write_tracks
from stages.data.items import recipe
from stages.data.paths import clips_folder, tracks_folder
from stages.data.tables import read_clips
from stages.params import Params, Split, TracksParams
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items


@dataclass(frozen=True)
class TrackJob:
    """One clip to track points in."""

    clip: Path
    output: Path
    settings: TracksParams


def run(split: Split, params: Params) -> None:
    settings, folder = params.tracks, tracks_folder(split)
    made_by = recipe(code_of(track_clip, params), tracks=settings)
    kept = list(read_clips(split).query("status == 'kept'")["clip_id"])
    items = [
        TrackJob(clips_folder(split) / f"{clip_id}.mp4", folder.path(clip_id), settings)
        for clip_id in folder.prepare(kept, made_by)
    ]
    neural = params.is_neural("tracks")
    for _ in map_items(track_clip, items, params.compute, f"tracks@{split}", _crashed, neural):
        pass
    folder.pack(kept)


def track_clip(item: TrackJob) -> None:
    """Follow the grid of points through a clip and write their tracks."""
    track = load_estimator("tracks", item.settings.estimator, **item.settings.options())
    frames, _ = read.read_video(item.clip)
    height, width = frames.shape[1:3]
    write_tracks(item.output, *track(frames, geometry.point_grid(width, height, item.settings.grid)))


def _crashed(item: TrackJob) -> None:
    raise RuntimeError(
        f"{item.clip}: tracking it ended its process, most likely for lack of memory; lower compute.workers"
    )


if __name__ == "__main__":
    run_stage("stages.tracks")

"""Point tracks on a grid over each kept clip (Sec 2.2, step 4): data/tracks/<split>/<clip_id>.npz.

python -m stages.tracks --split mixed
"""

from dataclasses import dataclass
from pathlib import Path

from models import video
from models.curation import tracking
from models.estimators import estimator_module, load_estimator
from stages.command import run_split_stage
from stages.compute import map_items
from stages.contracts import clips_folder, read_clips, tracks_folder, write_tracks
from stages.items import recipe
from stages.params import Params, Split, Tracks


@dataclass(frozen=True)
class Item:
    """One clip to track points in."""

    clip: Path
    output: Path
    settings: Tracks


def run(split: Split, params: Params) -> None:
    settings, folder = params.tracks, tracks_folder(split)
    made_by = recipe([tracking, video, estimator_module("tracks", settings.estimator)], tracks=settings)
    kept = read_clips(split).query("status == 'kept'")["clip_id"]
    items = [
        Item(clips_folder(split) / f"{clip_id}.mp4", folder.path(clip_id), settings)
        for clip_id in folder.prepare(kept, made_by)
    ]
    neural = settings.estimator == "cotracker"
    for _ in map_items(track_clip, items, params.compute, f"tracks@{split}", _crashed, neural):
        pass


def track_clip(item: Item) -> None:
    """Follow the grid of points through a clip and write their tracks."""
    track = load_estimator("tracks", item.settings.estimator, **item.settings.options())
    frames, _ = video.read_video(item.clip)
    height, width = frames.shape[1:3]
    write_tracks(item.output, *track(frames, tracking.point_grid(width, height, item.settings.grid)))


def _crashed(item: Item) -> None:
    raise RuntimeError(
        f"{item.clip}: tracking it ended its process, most likely for lack of memory; lower compute.workers"
    )


if __name__ == "__main__":
    run_split_stage("stages.tracks")

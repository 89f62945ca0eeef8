"""Sparse draws of tracks (Sec 2.2, step 5), as indices into the tracks of a clip.

    python -m stages.sparse_flows --split mixed

data/sparse_flows/<split>/shard-*.zip holds <clip_id>.npz. They become flow maps, and are blurred, where they are used.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.curation import sparse
from stages.data.arrays import read_tracks, write_draws
from stages.data.items import recipe
from stages.data.paths import draws_folder, tracks_folder
from stages.params import Params, SparseFlowsParams, Split
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items


@dataclass(frozen=True)
class DrawJob:
    """One clip's tracks to draw from."""

    clip_id: str
    tracks: Path
    output: Path
    settings: SparseFlowsParams


def run(split: Split, params: Params) -> None:
    tracks, folder = tracks_folder(split), draws_folder(split)
    made_by = recipe(code_of(draw_clip), sparse_flows=params.sparse_flows, tracks=tracks.recipe())
    drawn = sorted(tracks.ids())
    items = [
        DrawJob(clip_id, tracks.path(clip_id), folder.path(clip_id), params.sparse_flows)
        for clip_id in folder.prepare(drawn, made_by)
    ]
    for _ in map_items(draw_clip, items, params.compute, f"sparse_flows@{split}", _crashed):
        pass
    folder.pack(drawn)


def draw_clip(item: DrawJob) -> None:
    """Draw tracks of one clip, by a seed of its own, and write their indices."""
    settings, data = item.settings, read_tracks(item.tracks)
    rng = np.random.default_rng([settings.seed, int(item.clip_id, 16)])
    write_draws(item.output, sparse.choose_tracks(*data, settings.max_tracks, settings.draws, rng))


def _crashed(item: DrawJob) -> None:
    raise RuntimeError(f"{item.tracks}: drawing from it ended its process; most likely for lack of memory")


if __name__ == "__main__":
    run_stage("stages.sparse_flows")

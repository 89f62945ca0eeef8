"""Sparse draws of tracks (Sec 2.2, step 5): data/sparse_flows/<split>/<clip_id>.npz, as indices into the clip's tracks.

    python -m stages.sparse_flows --split mixed

They become flow maps, and are blurred, where they are used.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.curation import sparse, tracking
from stages.command import run_split_stage
from stages.compute import map_items
from stages.contracts import draws_folder, read_tracks, tracks_folder, write_draws
from stages.items import recipe
from stages.params import Params, SparseFlows, Split


@dataclass(frozen=True)
class Item:
    """One clip's tracks to draw from."""

    clip_id: str
    tracks: Path
    output: Path
    settings: SparseFlows


def run(split: Split, params: Params) -> None:
    tracks, folder = tracks_folder(split), draws_folder(split)
    made_by = recipe([sparse, tracking], sparse_flows=params.sparse_flows, tracks=tracks.recipe())
    items = [
        Item(clip_id, tracks.path(clip_id), folder.path(clip_id), params.sparse_flows)
        for clip_id in folder.prepare(sorted(tracks.ids()), made_by)
    ]
    for _ in map_items(draw, items, params.compute, f"sparse_flows@{split}", _crashed):
        pass


def draw(item: Item) -> None:
    """Draw tracks of one clip, by a seed of its own, and write their indices."""
    settings, data = item.settings, read_tracks(item.tracks)
    rng = np.random.default_rng([settings.seed, int(item.clip_id, 16)])
    write_draws(item.output, sparse.draw_tracks(*data, settings.max_tracks, settings.draws, rng))


def _crashed(item: Item) -> None:
    raise RuntimeError(f"{item.tracks}: drawing from it ended its process; most likely for lack of memory")


if __name__ == "__main__":
    run_split_stage("stages.sparse_flows")

"""Which strokes pre-training shows, and what they belong to."""

from pathlib import Path

import pytest
import torch

from models.foundation import Foundation
from models.scenes import MAX_OBJECTS, moving_parts, sample_scenes
from stages.params import load_params
from stages.pretrain import KINDS, Batch, choose_strokes, make_pool

ROOT = Path(__file__).parents[2]
SIZE = 12


@pytest.fixture(scope="module")
def batch() -> Batch:
    params = load_params(ROOT / "profiles/pocket.yaml")
    return make_pool(params, Foundation.load(ROOT / "pretrained/pocket"), 0, SIZE, "cpu")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_point_moves_with_the_object_that_covers_it_or_with_the_scene():
    scenes = sample_scenes(["object"] * 8, 8, list(range(8)), movers=1)
    centres = (scenes.centres[:, :, 0] + torch.tensor([0.75, 0.5])) * 64 - 0.5
    parts = moving_parts(scenes, centres, 96, 64)
    corner = moving_parts(scenes, torch.zeros(8, 1, 2), 96, 64)
    assert (parts[:, 0] == 1).all()  # the first object moves
    assert (parts[:, 1:][scenes.present[:, 1:]] == 0).all()  # the others rest
    assert (corner == 0).all()


def test_a_few_strokes_leave_no_motion_unsaid(batch):
    tracks, visibility = choose_strokes(batch, "sparse", generator())
    assert tracks.shape[:2] == visibility.shape[:2] == batch.tracks.shape[:2] and tracks.shape[2] <= 8
    for item in range(SIZE):
        starts = tracks[item, 0][visibility[item, 0]]
        nearest = torch.cdist(starts, batch.tracks[item, 0]).argmin(1)
        named = set(batch.parts[item][nearest].tolist())
        trackable = batch.visibility[item, 0] & batch.visibility[item, 1]
        needed = set(batch.parts[item][trackable].tolist()) - {0}
        if batch.camera[item].max() > 0:
            needed |= {0}
        assert needed <= named <= set(range(MAX_OBJECTS + 1)), KINDS[item % 3]


def test_dense_strokes_are_all_tracks_and_none_is_none(batch):
    tracks, visibility = choose_strokes(batch, "dense", generator())
    assert tracks is batch.tracks and visibility is batch.visibility
    assert choose_strokes(batch, "none", generator()) is None

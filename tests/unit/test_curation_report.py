"""The numbers behind the page about the curated clips."""

import numpy as np
import pandas as pd
import pytest

from models.curation.report import funnel, histogram, kind_of, sparse_draw


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("little motion: score 56.1 is among the lowest 25% of the split", "little motion"),
        ("too short: 7 frames, 32 are needed", "too short"),
        ("same content as a-1.mp4", "same content as …"),
    ],
)
def test_reasons_that_differ_in_numbers_and_names_are_one_kind(reason, kind):
    assert kind_of(reason) == kind


def test_the_funnel_loses_what_was_dropped():
    clips = pd.DataFrame(
        {
            "status": ["kept", "dropped", "dropped", "dropped"],
            "reason": ["", "little motion: score 3", "little motion: score 4", "too short: 2 frames"],
        }
    )
    steps = funnel(clips)
    assert steps == [("raw videos", 4), ("little motion", -2), ("too short", -1), ("kept", 1)]
    assert sum(n for _, n in steps[:-1]) == steps[-1][1]


def test_a_histogram_counts_every_value():
    bars = histogram([1, 2, 2, 5])
    assert sum(bar.values for bar in bars) == 4
    assert (bars[0].low, bars[-1].high) == (1, 5)
    assert histogram([]) == []
    assert sum(bar.values for bar in histogram([144.0] * 3)) == 3


def test_a_sparse_draw_stands_beside_its_flow_map():
    tracks = np.tile(np.array([[[20.0, 16.0]]], np.float32), (4, 1, 1)) + np.arange(4)[:, None, None] * 3
    video = sparse_draw(np.zeros((4, 32, 48, 3), np.uint8), tracks.astype(np.float32), np.ones((4, 1), bool), 2)
    assert video.shape == (4, 64, 2 * 96, 3)
    assert video[0, :, 96:].min() == 255
    assert video[1, :, 96:].min() < 255

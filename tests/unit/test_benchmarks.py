"""The reference of `benchmarks.training` does the same work as the project."""

import numpy as np
import torch

from benchmarks.training import opencv_flow_map
from models.denoising.flow_maps import flow_map


def test_opencv_makes_the_same_flow_maps_frame_by_frame():
    draw = np.random.default_rng(0)
    steps = draw.normal(size=(6, 5, 2)).astype(np.float32)
    tracks = draw.uniform(0, 60, (1, 5, 2)).astype(np.float32) + np.concatenate([0 * steps[:1], steps]).cumsum(0)
    ours = flow_map(torch.from_numpy(tracks)[None], torch.ones(1, 7, 5, dtype=torch.bool), 64, 96)[0]
    assert ours.abs().max() > 0.01
    np.testing.assert_allclose(opencv_flow_map(tracks, 64, 96), ours.numpy(), atol=1e-6)

"""FID's and FVD's features, with networks of the right shape; the official weights where they are given."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from models.evaluation.features import I3DFeatures, InceptionFeatures, WeightsUnusable, codec_features
from models.metrics import frechet_distance
from tests.footage import moving_texture
from tests.unit.feature_networks import write_i3d, write_inception

I3D = os.environ.get("I3D_WEIGHTS")  # files of the official weights, to check against published values
INCEPTION = os.environ.get("INCEPTION_WEIGHTS")


@pytest.fixture(scope="module")
def i3d(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    write_i3d(path)
    return path


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> Path:
    """A file of random weights in the shape of the official ones."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    write_inception(path)
    return path


def test_codec_features_tell_look_from_motion():
    still, moving = torch.ones(2, 4, 3, 3), torch.arange(4.0).view(1, 4, 1, 1).expand(2, 4, 3, 3)
    assert codec_features(still).tolist() == [1, 1, 0, 0]
    assert codec_features(moving).tolist() == [1.5, 1.5, 1, 1]


def test_fvd_features_have_one_row_for_each_video(i3d):
    videos = [moving_texture(10, 32, 24, seed=seed) for seed in range(3)]
    features = I3DFeatures(i3d)
    rows = features(videos)
    assert rows.shape == (3, 400)
    assert rows[:, 0] == pytest.approx([video.mean() for video in videos], rel=1e-4)
    assert rows[:, 1] == pytest.approx([video[..., 0].mean() for video in videos], rel=1e-4)
    assert len(features.sha256) == 64 and "StyleGAN-V" in features.variant


def test_fvd_needs_ten_frames(i3d):
    with pytest.raises(ValueError, match="at least 10 frames, got 9"):
        I3DFeatures(i3d)([moving_texture(9, 32, 24)])


def test_fid_features_have_one_row_for_each_frame(inception_weights):
    features = InceptionFeatures(inception_weights)
    video = moving_texture(2, 48, 32)
    rows = features([video, video[:1]])
    assert rows.shape == (3, 2048)
    np.testing.assert_allclose(rows[0], rows[2], rtol=1e-3, atol=1e-4)
    assert np.isfinite(rows).all() and len(features.sha256) == 64


@pytest.mark.parametrize(("kind", "features"), [("inception", InceptionFeatures), ("i3d", I3DFeatures)])
def test_unusable_weights_are_named_with_a_remedy(kind, features, tmp_path):
    missing, wrong = tmp_path / "none.pt", tmp_path / "wrong.pt"
    wrong.write_bytes(b"no weights")
    with pytest.raises(WeightsUnusable, match=rf"evaluate.{kind}_weights: .*none.pt cannot be read .* Put http"):
        features(missing)
    with pytest.raises(
        WeightsUnusable,
        match=rf"evaluate.{kind}_weights: .*wrong.pt (is no|does not hold) .* evaluate.features to codec",
    ):
        features(wrong)


@pytest.mark.skipif(not I3D, reason="I3D_WEIGHTS does not name i3d_torchscript.pt")
def test_fvd_of_zeros_against_ones_is_the_published_one():
    """The authors' example: 16 videos of 15 black 64x64 frames against 16 white ones, about 131."""
    features = I3DFeatures(I3D)
    black, white = (features([np.full((15, 64, 64, 3), value, np.uint8)] * 16) for value in (0, 255))
    assert frechet_distance(black, white) == pytest.approx(131, abs=5)


@pytest.mark.skipif(not INCEPTION, reason="INCEPTION_WEIGHTS does not name pytorch-fid's weights")
def test_fid_weights_are_the_official_ones():
    assert InceptionFeatures(INCEPTION).sha256.startswith("6726825d")

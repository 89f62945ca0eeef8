"""Closed-form oracles of the evaluation's figures."""

import numpy as np
import pytest

from models.metrics import (
    background_share,
    equivalent_pixels,
    frechet_distance,
    psnr,
    still_error,
    summarise,
    trajectory_error,
)

FRAMES = 5
SEEN = np.ones((FRAMES, 1), bool)


def straight(step: tuple[float, float], points: int = 1) -> np.ndarray:
    """(T, N, 2): from (10, 10), `step` pixels a frame."""
    path = 10 + np.arange(FRAMES)[:, None] * np.array(step, float)
    return np.repeat(path[:, None], points, axis=1)


def lost_after(frame: int) -> np.ndarray:
    return (np.arange(FRAMES) <= frame)[:, None]


def test_a_video_that_follows_has_no_error():
    wanted = straight((3, -1))
    assert trajectory_error(wanted, SEEN, wanted) == (0.0, False)


def test_the_error_is_the_mean_distance_without_frame_0():
    wanted = straight((3, 4))
    tracked = wanted + np.array([3, 4])
    tracked[0] = 1000
    assert trajectory_error(tracked, SEEN, wanted).px == pytest.approx(5)


def test_a_still_video_is_as_far_off_as_the_trajectory_is_long():
    assert still_error(straight((3, 4))).px == pytest.approx(5 * np.mean([1, 2, 3, 4]))


def test_a_track_lost_at_the_end_counts_as_a_still_one_even_where_its_guess_is_right():
    wanted = straight((3, 4))
    error = trajectory_error(wanted, lost_after(3), wanted)
    assert error.px == pytest.approx(still_error(wanted).px)
    assert error.lost


def test_a_lost_track_keeps_an_error_that_is_worse_than_the_still_one():
    wanted = straight((3, 4))
    error = trajectory_error(wanted + np.array([0, 400]), lost_after(1), wanted)
    assert error.px == pytest.approx(400)


def test_an_unseen_step_counts_as_still_without_losing_the_track():
    wanted = straight((3, 4))
    seen = SEEN.copy()
    seen[2] = False
    error = trajectory_error(wanted, seen, wanted)
    assert error.px == pytest.approx(2 * 5 / 4)
    assert not error.lost


def test_one_lost_stroke_of_two_makes_the_video_a_failure():
    wanted = straight((3, 4), points=2)
    seen = np.concatenate([SEEN, lost_after(2)], axis=1)
    error = trajectory_error(wanted, seen, wanted)
    assert error.px == pytest.approx(still_error(wanted).px / 2)
    assert error.lost


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_background_follows_by_its_share_of_the_stroke(share):
    stroke = straight((3, -4))[:, 0]
    background = straight((3 * share, -4 * share), points=6)
    seen = np.ones((FRAMES, 6), bool)
    assert background_share(background, seen, stroke, if_lost=1.0).share == pytest.approx(share)


def test_motion_across_the_stroke_is_no_share_of_it():
    stroke = straight((3, 0))[:, 0]
    assert background_share(straight((0, 5)), SEEN, stroke, if_lost=1.0).share == pytest.approx(0)


def test_a_few_stray_points_do_not_move_the_background():
    background = np.concatenate([straight((0, 0), 5), straight((9, 9), 2)], axis=1)
    share = background_share(background, np.ones((FRAMES, 7), bool), straight((3, 3))[:, 0], if_lost=1.0)
    assert share == (0.0, False)


@pytest.mark.parametrize("if_lost", [0.0, 1.0])
def test_a_lost_background_counts_as_the_bad_end(if_lost):
    stroke = straight((3, 0))[:, 0]
    following = straight((1.5, 0))
    assert background_share(following, lost_after(2), stroke, if_lost) == (if_lost, True)


def test_the_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(0).exponential(5, 40)
    summary = summarise(values, [True] * 3 + [False] * 37, seed=1)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.low < summary.mean < summary.high
    assert (summary.n, summary.failures) == (40, 3)
    assert summary == summarise(values, [True] * 3 + [False] * 37, seed=1)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    summaries = [summarise(rng.normal(7, 2, 40), [False] * 40, seed) for seed in range(200)]
    covered = np.mean([s.low <= 7 <= s.high for s in summaries])
    assert 0.88 <= covered <= 0.99


def test_one_video_has_an_interval_of_no_width():
    assert summarise([4.0], [False], seed=0) == (4.0, 4.0, 4.0, 1, 0)


def test_no_video_has_no_mean():
    with pytest.raises(ValueError, match="no video"):
        summarise([], [], seed=0)


def test_pixels_are_those_of_a_384_wide_video():
    assert equivalent_pixels(2.5, 96) == 10
    assert equivalent_pixels(2.5, 384) == 2.5


def test_with_equal_covariances_the_distance_is_that_of_the_means_squared():
    features = np.random.default_rng(0).normal(size=(60, 4))
    moved = features + np.array([3.0, 0, 0, 4.0])
    assert frechet_distance(features, moved) == pytest.approx(25, rel=1e-6)


def test_with_equal_means_scaling_by_two_costs_the_trace_of_the_covariance():
    features = np.random.default_rng(1).normal(size=(60, 3))
    features -= features.mean(0)
    assert frechet_distance(features, 2 * features) == pytest.approx(np.trace(np.cov(features.T)), rel=1e-6)


def test_psnr_of_a_constant_error():
    image = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(image, image + np.uint8(51)) == pytest.approx(20 * np.log10(5))
    assert psnr(image, image) == np.inf

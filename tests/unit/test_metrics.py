"""Closed-form oracles of the evaluation's figures."""

import numpy as np
import pytest
import scipy.linalg

from models.evaluation.look import colour_drift, detail_kept, psnr, ssim
from models.metrics import (
    MotionError,
    against_background,
    equivalent_pixels,
    following,
    frechet_distance,
    interval,
    still_error,
    summarise,
    tap_vid,
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
    assert trajectory_error(wanted, SEEN, wanted) == (0.0, pytest.approx(np.hypot(3, 1) * 2.5), False)


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


def test_the_error_relative_to_the_stroke_is_one_for_a_still_video():
    wanted = straight((3, 4))
    assert still_error(wanted).relative == pytest.approx(1)
    half = wanted[:1] + (wanted - wanted[:1]) / 2
    assert trajectory_error(half, SEEN, wanted).relative == pytest.approx(0.5)
    assert np.isnan(still_error(straight((0, 0))).relative)


def test_what_has_left_the_frame_counts_neither_as_error_nor_as_lost():
    wanted, inside = straight((3, 4)), lost_after(2)
    tracked = wanted + np.array([3, 4])
    tracked[3:] = 1000
    error = trajectory_error(tracked, lost_after(2), wanted, inside)
    assert error == (pytest.approx(5), pytest.approx(7.5), False)
    assert trajectory_error(tracked, lost_after(1), wanted, inside).lost
    assert still_error(wanted, inside).px == pytest.approx(7.5)


def test_a_video_without_a_step_in_the_frame_has_no_error():
    with pytest.raises(ValueError, match="no stroke stays in the frame"):
        trajectory_error(straight((3, 4)), SEEN, straight((3, 4)), lost_after(0))


def test_an_error_scales_to_the_reference_width():
    assert MotionError(2.0, 10.0, True).equivalent(96) == (8.0, 40.0, True)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_points_follow_by_their_share_of_the_stroke(share):
    stroke = straight((3, -4))[:, 0]
    background = straight((3 * share, -4 * share), points=6)
    follows = following(background, np.ones((FRAMES, 6), bool), stroke, if_lost=1.0)
    assert follows == (pytest.approx(share), pytest.approx(share * 12.5), False)


def test_motion_across_the_stroke_is_no_share_of_it_but_motion():
    stroke = straight((3, 0))[:, 0]
    follows = following(straight((0, 5)), SEEN, stroke, if_lost=1.0)
    assert follows == (pytest.approx(0), pytest.approx(12.5), False)


def test_a_few_stray_points_do_not_move_the_background():
    background = np.concatenate([straight((0, 0), 5), straight((9, 9), 2)], axis=1)
    assert following(background, np.ones((FRAMES, 7), bool), straight((3, 3))[:, 0], if_lost=1.0) == (0.0, 0.0, False)


@pytest.mark.parametrize(("if_lost", "px"), [(0.0, 0.0), (1.0, 7.5)])
def test_lost_points_count_as_the_bad_end(if_lost, px):
    stroke = straight((3, 0))[:, 0]
    assert following(straight((1.5, 0)), lost_after(2), stroke, if_lost) == (if_lost, pytest.approx(px), True)


def scene(step: tuple[float, float], zoom: float) -> np.ndarray:
    """Twenty points (T, 20, 2) of a scene that pans and zooms."""
    start = np.random.default_rng(0).uniform(0, 60, (20, 2))
    frames = np.arange(FRAMES)[:, None, None]
    return (start * (1 + zoom * frames) + frames * np.array(step)).astype(np.float32)


def test_an_object_that_the_camera_carries_along_does_not_move_against_the_background():
    points, seen = scene((2, -1), 0.03), np.ones((FRAMES, 20), bool)
    alone = against_background(points[:, :5], seen[:, :5], points[:, 5:], seen[:, 5:], straight((3, 4), points=2))
    assert alone == (pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-2), False)


def test_an_object_that_rests_in_a_panning_scene_moves_against_it_by_the_pan():
    points, seen = scene((3, 4), 0.0), np.ones((FRAMES, 20), bool)
    rests = np.repeat(points[:1, :5], FRAMES, 0)
    alone = against_background(rests, seen[:, :5], points[:, 5:], seen[:, 5:], straight((3, 4)))
    assert alone == (pytest.approx(1, abs=1e-3), pytest.approx(12.5, abs=1e-2), False)


def test_a_lost_object_counts_as_torn_off_by_a_stroke():
    points, seen = scene((3, 4), 0.0), np.ones((FRAMES, 20), bool)
    alone = against_background(points[:, :1], lost_after(2), points[:, 5:], seen[:, 5:], straight((3, 4)))
    assert alone == (pytest.approx(1), pytest.approx(12.5), True)


def test_the_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(0).exponential(5, 40)
    lost = [True] * 3 + [False] * 37
    summary = summarise(values, lost, range(40), seed=1)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.low < summary.mean < summary.high
    assert (summary.n, summary.failures) == (40, 3)
    assert summary.kept == pytest.approx(values[3:].mean())
    assert summary == summarise(values, lost, range(40), seed=1)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [interval(rng.normal(7, 2, 40), range(40), seed) for seed in range(200)]
    covered = np.mean([low <= 7 <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_videos_of_one_picture_are_not_independent():
    """Two hundred videos of twenty pictures: each picture has its own level, with hardly any difference within."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    covered = {"pictures": [], "videos": []}
    for seed in range(100):
        values = rng.normal(7, 2, 20)[groups] + rng.normal(0, 0.1, 200)
        for name, of in (("pictures", groups), ("videos", np.arange(200))):
            low, high = interval(values, of.tolist(), seed)
            covered[name].append(low <= 7 <= high)
    assert np.mean(covered["pictures"]) > 0.85
    assert np.mean(covered["videos"]) < 0.6


def test_uneven_pictures_keep_the_mean_over_videos():
    low, high = interval(np.array([1.0, 1.0, 1.0, 5.0]), ["a", "a", "a", "b"], seed=0)
    assert (low, high) == (1, 5)


def test_one_video_has_an_interval_of_no_width():
    assert summarise([4.0], [False], ["a"], seed=0) == (4.0, 4.0, 4.0, 1, 0, 4.0)


def test_where_every_video_is_lost_none_is_kept():
    assert np.isnan(summarise([4.0], [True], ["a"], seed=0).kept)


def test_no_video_has_no_mean():
    with pytest.raises(ValueError, match="no video"):
        summarise([], [], [], seed=0)


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


@pytest.mark.parametrize(("n", "m"), [(60, 40), (60, 9), (7, 9)])
def test_the_distance_is_that_of_the_matrix_square_root(n, m):
    rng = np.random.default_rng(n + m)
    mixing = rng.normal(size=(12, 12))
    features, reference = rng.normal(size=(n, 12)) @ mixing, rng.normal(1, 2, size=(m, 12))
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (features, reference)]
    root = scipy.linalg.sqrtm(moments[0][1] @ moments[1][1] + 0j).real
    means, covariances = (np.stack(each) for each in zip(*moments, strict=True))
    wanted = np.square(means[0] - means[1]).sum() + np.trace(covariances.sum(0) - 2 * root)
    assert frechet_distance(features, reference) == pytest.approx(wanted, rel=1e-3)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_psnr_of_a_constant_error():
    image = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(image, image + np.uint8(51)) == pytest.approx(20 * np.log10(5))
    assert psnr(image, image) == np.inf


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    noisy = np.clip(image + np.random.default_rng(1).normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    assert ssim(image, image) == pytest.approx(1)
    assert 0.3 < ssim(noisy, image) < 0.95
    assert ssim(255 - image, image) < 0


def test_drift_is_that_of_each_frame_against_the_first():
    noise = np.random.default_rng(0).integers(60, 190, (16, 24, 3)).astype(float)
    frames = np.stack([noise, noise + 10, 125 + (noise - 125) / 2]).astype(np.uint8)
    assert colour_drift(frames)[:2] == pytest.approx([0, 10])
    assert detail_kept(frames) == pytest.approx([1, 1, 0.5], abs=0.02)


def test_tap_vid_counts_as_its_authors_do():
    truth = np.zeros((3, 2, 2))
    seen = np.array([[True, True], [True, True], [True, False]])
    tracks = truth.copy()
    tracks[1, 1, 0] = 3.0  # 3 px off, found visible
    visibility = np.array([[True, True], [True, True], [False, True]])  # one missed, one that is hidden

    figures = tap_vid(tracks, visibility, truth, seen, thresholds=(2, 4))

    assert figures["within_2_px"] == pytest.approx(2 / 3) and figures["within_4_px"] == 1
    assert figures["occlusion_accuracy"] == pytest.approx(2 / 4) and figures["occluded"] == 0.5
    assert figures["jaccard_2_px"] == pytest.approx(1 / (3 + 2))  # wrong: the far one and the hidden one
    assert figures["jaccard_4_px"] == pytest.approx(2 / (3 + 1))
    assert figures["average_jaccard"] == pytest.approx((1 / 5 + 2 / 4) / 2)


def test_tap_vid_of_points_not_seen_at_first_is_no_number():
    tracks, hidden = np.zeros((3, 1, 2)), np.zeros((3, 1), bool)
    assert np.isnan(tap_vid(tracks, hidden, tracks, hidden)["average_jaccard"])

"""The twenty evaluation trajectories, and the objects that ten of them start on."""

import numpy as np
import pytest
import torch

from models.estimators import load_estimator
from models.evaluation.objects import clear_background, find_object, staying
from models.evaluation.standard_trajectories import camera_names, camera_tracks, object_names, object_track
from models.geometry import inside_frame, point_grid
from models.scenes import render, sample_scenes, true_tracks
from stages.evaluation.cases import spread

FRAME, FRAMES, GRID = (96, 64), 8, 16
LENGTH = (0.1, 0.45)  # furthest displacement of a trajectory, in frame heights


def furthest(tracks: np.ndarray) -> np.ndarray:
    """How far each of the tracks (T, N, 2) gets from its start, in frame heights."""
    return np.linalg.norm(tracks - tracks[:1], axis=-1).max(0) / FRAME[1]


def scene(kind: str, seed: int):
    """A scene, and its grid of points (T, N, 2) followed by Lucas-Kanade."""
    scenes = sample_scenes([kind], FRAMES, [seed])
    frames = (render(scenes, *FRAME)[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
    return scenes, load_estimator("tracks", "lucas_kanade")(frames, point_grid(*FRAME, GRID))


def true_paths(scenes, points: np.ndarray) -> np.ndarray:
    """Where the scene really takes points (N, 2) of frame 0: (T, N, 2)."""
    return true_tracks(scenes, torch.from_numpy(points)[None].float(), *FRAME)[0][0].numpy()


def test_there_are_ten_of_each_under_names_of_their_own():
    assert len(set(camera_names())) == len(set(object_names())) == 10


@pytest.mark.parametrize("name", camera_names())
def test_camera_strokes_stay_in_the_frame_and_are_spread_over_it(name):
    tracks = camera_tracks(name, FRAME, FRAMES)
    assert tracks.shape == (FRAMES, 6, 2)
    assert inside_frame(tracks, *FRAME).all()
    assert (np.ptp(tracks[0], axis=0) > 0.4 * np.array(FRAME)).all()
    assert (furthest(tracks) > LENGTH[0] / 2).all()
    assert furthest(tracks).max() < LENGTH[1]


def test_a_camera_move_is_named_after_what_the_picture_does():
    moves = {name: camera_tracks(name, FRAME, FRAMES) for name in camera_names()}
    moved = {name: (tracks[-1] - tracks[0]).mean(0) for name, tracks in moves.items()}
    assert moved["pan_left"][0] < 0 < moved["pan_right"][0]
    assert moved["pan_up"][1] < 0 < moved["pan_down"][1]
    grown = {
        name: np.linalg.norm(tracks - tracks.mean(1, keepdims=True), axis=-1).mean(1) for name, tracks in moves.items()
    }
    assert grown["zoom_in"][-1] > 1.2 * grown["zoom_in"][0]
    assert grown["zoom_out"][-1] < 0.85 * grown["zoom_out"][0]


@pytest.mark.parametrize("name", object_names())
@pytest.mark.parametrize("x", [12, 48, 84])
@pytest.mark.parametrize("y", [13, 32, 51])
def test_object_strokes_start_on_their_point_and_stay_in_the_frame(name, x, y):
    track = object_track(name, np.array([x, y], np.float32), FRAME, FRAMES)
    assert track.shape == (FRAMES, 1, 2)
    np.testing.assert_allclose(track[0, 0], [x, y])
    assert inside_frame(track, *FRAME).all()
    assert LENGTH[0] < furthest(track)[0] < LENGTH[1]


def test_a_trajectory_is_the_same_at_any_size():
    for name in camera_names():
        small, large = (camera_tracks(name, (side, side * 2 // 3), FRAMES) for side in (96, 384))
        np.testing.assert_allclose((small + 0.5) * 4, large + 0.5, atol=1e-3)


@pytest.mark.parametrize("kind", ["object", "mixed"])
def test_a_found_start_lies_on_a_moving_object_and_most_scenes_have_one(kind):
    seeds = range(91_000, 91_024)
    found = [right for seed in seeds if (right := start_is_right(kind, seed)) is not None]
    assert np.mean(found) >= 0.9
    assert len(found) >= 0.75 * len(seeds)


def start_is_right(kind: str, seed: int) -> bool | None:
    """Whether the start truly moves against the camera and the background does not; None if no object was found."""
    scenes, tracked = scene(kind, seed)
    found = find_object(*tracked, GRID, FRAME[1])
    if found is None:
        return None
    held = sample_scenes([kind], FRAMES, [seed])
    held.centres[:] = held.centres[:, :, :1]  # the same camera, with the objects at rest
    points = np.concatenate([found.body, found.background])
    apart = np.linalg.norm(true_paths(scenes, points) - true_paths(held, points), axis=-1).max(0)
    body, background = apart[: len(found.body)], apart[len(found.body) :]
    return bool(body[0] > 2 and np.mean(body > 2) > 0.6 and np.mean(background < 1) > 0.95)


def test_the_start_is_the_first_point_of_the_body():
    _, tracked = scene("object", 91_000)
    found = find_object(*tracked, GRID, FRAME[1])
    np.testing.assert_array_equal(found.body[0], found.start)


def test_strokes_are_spread_from_the_first_point_on():
    line = np.stack([np.arange(9.0), np.zeros(9)], -1)
    assert spread(line[[4, *range(4), *range(5, 9)]], 3)[:, 0].tolist() == [4, 0, 8]
    assert len(spread(line, 20)) == 9
    assert len(spread(line[:0], 3)) == 0


@pytest.mark.parametrize("seed", range(92_000, 92_006))
def test_where_only_the_camera_moves_there_is_no_object(seed):
    _, tracked = scene("camera", seed)
    assert find_object(*tracked, GRID, FRAME[1]) is None


def test_points_that_the_camera_alone_moves_are_no_object():
    start = point_grid(*FRAME, GRID)
    tracks = np.stack([start * (1 + 0.02 * t) + (2 * t, -t) for t in range(FRAMES)]).astype(np.float32)
    assert find_object(tracks, np.ones(tracks.shape[:2], bool), GRID, FRAME[1]) is None


def test_the_clear_background_keeps_away_from_the_stroke_and_could_follow_it():
    start = np.array([20, 32], np.float32)
    path = start + np.linspace(0, 1, FRAMES)[:, None] * (24, 0)
    background = point_grid(*FRAME, GRID)
    clear = clear_background(background, path, *FRAME)
    assert 0 < len(clear) < len(background)
    assert np.linalg.norm(clear[:, None] - path, axis=-1).min() > 0.3 * FRAME[1]
    assert inside_frame(clear + path[-1] - path[0], *FRAME).all()


@pytest.mark.parametrize("name", camera_names())
def test_points_that_the_camera_carries_out_of_the_frame_are_left_out(name):
    strokes = camera_tracks(name, FRAME, FRAMES)
    points = point_grid(*FRAME, GRID)
    stay = staying(points, strokes, *FRAME)
    assert {tuple(point) for point in stay.tolist()} < {tuple(point) for point in points.tolist()}
    assert len(stay) > len(points) / 4
    on_strokes = staying(strokes[0], strokes, *FRAME)
    assert len(on_strokes) == strokes.shape[1]  # each ends where it was drawn to: inside


def test_what_a_pan_carries_out_is_known_exactly():
    strokes = np.array([[[10, 10], [60, 10], [10, 50]]], np.float32) + np.array([[[0, 0]], [[20, 0]]], np.float32)
    points = np.array([[5, 30], [70, 30], [73, 30], [76, 30], [90, 30]], np.float32)
    np.testing.assert_array_equal(staying(points, strokes, 96, 64), points[:3])

"""The trajectory formats, their checks, and the way from a stroke to tracks."""

import json
import math

import numpy as np
import pytest

from models.strokes.camera_presets import CAMERA_MOVES
from models.strokes.stroke import MAX_POINTS, MAX_STROKES, TrajectoryError, stroke_tracks
from models.strokes.trajectories import load_trajectories, parse_trajectories

CANVAS = {"width": 384, "height": 256}


def drawn(*strokes, **fields):
    return parse_trajectories(CANVAS | {"trajectories": list(strokes)} | fields)


def tracks(trajectories, frames=16, frame=(384, 256)):
    return stroke_tracks(trajectories.strokes, trajectories.canvas, frame, frames)[0]


def test_two_points_become_a_straight_line_at_constant_speed():
    line = tracks(drawn([[10, 20], [40, 50]]))
    assert line.shape == (16, 1, 2)
    assert line.dtype == np.float32
    np.testing.assert_allclose(np.diff(line[:, 0], axis=0), np.full((15, 2), 2.0), rtol=1e-5)


def test_interpolation_passes_through_the_points_without_overshoot():
    points = [[10, 10], [50, 10], [50, 90], [20, 90]]
    path = tracks(drawn(points))[:, 0]
    np.testing.assert_allclose(path[[0, 5, 10, 15]], points, atol=1e-4)
    assert path.min() >= 10
    assert path[:, 0].max() <= 50


def test_times_say_when_a_point_is_reached_and_the_stroke_rests_before_and_after():
    path = tracks(drawn([[0, 0], [30, 0]], times=[[0.2, 0.8]]), frames=11)[:, 0, 0]
    np.testing.assert_allclose(path, [0, 0, 0, 5, 10, 15, 20, 25, 30, 30, 30], atol=1e-4)


def test_one_point_is_pinned_in_the_object_format_and_moves_by_one_pixel_in_the_authors():
    pinned, authors = tracks(drawn([[100, 50]])), tracks(parse_trajectories([[[100, 50]]]))
    assert np.all(pinned == [100, 50])
    np.testing.assert_allclose(authors[-1] - authors[0], [[1, 1]], atol=1e-5)


def test_an_array_of_tracks_keeps_its_positions(tmp_path):
    array = np.random.default_rng(0).uniform(0, 250, (16, 3, 2))
    np.save(tmp_path / "t.npy", array)
    np.testing.assert_allclose(tracks(load_trajectories(tmp_path / "t.npy")), array, atol=1e-4)


def test_strokes_are_scaled_and_cropped_as_the_picture_is():
    canvas = {"width": 200, "height": 200, "trajectories": [[[99.5, 99.5], [199.5, 99.5]]]}
    path = tracks(parse_trajectories(canvas), frames=2, frame=(96, 64))[:, 0]
    np.testing.assert_allclose(path, [[47.5, 31.5], [95.5, 31.5]], atol=1e-5)


def test_a_stroke_may_leave_the_frame_and_is_then_invisible_but_for_the_step_that_takes_it_out():
    path = drawn([[380, 100], [400, 100]])
    _, visibility = stroke_tracks(path.strokes, path.canvas, (384, 256), 5)
    assert visibility[:, 0].tolist() == [True, True, False, False, False]


def test_a_stroke_that_starts_in_a_part_that_is_cropped_off_is_invisible():
    square = parse_trajectories({"width": 100, "height": 100, "trajectories": [[[50, 2], [60, 2]]]})
    assert not stroke_tracks(square.strokes, square.canvas, (96, 64), 4)[1].any()


def test_camera_strokes_are_kept_apart():
    both = drawn([[10, 10], [20, 10]], camera_trajectories=[[[5, 5], [5, 9]]])
    assert (len(both.strokes), len(both.camera_strokes)) == (1, 1)
    assert len(drawn(camera_trajectories=[[[5, 5], [5, 9]]]).strokes) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (CANVAS, "trajectories: empty"),
        (CANVAS | {"trajectories": []}, "trajectories: empty"),
        (CANVAS | {"trajectories": [[]]}, r"trajectories\[0\]: .*at least 1"),
        (CANVAS | {"trajectories": [[1, 2]]}, r"trajectories\[0\]\[0\]: .*list"),
        (CANVAS | {"trajectories": [[[1, 2], [3]]]}, r"trajectories\[0\]\[1\]: .*at least 2"),
        (CANVAS | {"trajectories": [[[1, 2, 3]]]}, r"trajectories\[0\]\[0\]: .*at most 2"),
        (CANVAS | {"trajectories": [[[1, math.nan]]]}, r"trajectories\[0\]\[0\]\[1\]: .*finite"),
        (CANVAS | {"trajectories": [[[math.inf, 1]]]}, r"trajectories\[0\]\[0\]\[0\]: .*finite"),
        (CANVAS | {"trajectories": [[["1", 2]]]}, r"trajectories\[0\]\[0\]\[0\]: .*number"),
        (CANVAS | {"trajectories": [[[True, 2]]]}, r"trajectories\[0\]\[0\]\[0\]: .*number"),
        (CANVAS | {"trajectories": [[[10**400, 2]]]}, r"trajectories\[0\]\[0\]\[0\]: "),
        (CANVAS | {"trajectories": [[[500, 10], [420, 10]]]}, r"trajectories\[0\]\[0\]: .*outside the 384x256 canvas"),
        (CANVAS | {"trajectories": [[[1, 1]] * (MAX_POINTS + 1)]}, r"trajectories\[0\]: .*at most 1024"),
        (CANVAS | {"trajectories": [[[1, 1]]] * (MAX_STROKES + 1)}, "trajectories: .*at most 1024"),
        (CANVAS | {"trajectories": [[[1, 1]]], "camera_trajectories": [[[-9, 1]]]}, r"camera_trajectories\[0\]\[0\]"),
        (CANVAS | {"trajectories": [[[1, 1], [2, 2]]], "times": []}, "times: 0 lists for 1"),
        (CANVAS | {"trajectories": [[[1, 1], [2, 2]]], "times": [[0]]}, r"times\[0\]: 1 times for 2"),
        (CANVAS | {"trajectories": [[[1, 1], [2, 2]]], "times": [[0.5, 0.5]]}, r"times\[0\]: .*rise"),
        (CANVAS | {"trajectories": [[[1, 1], [2, 2]]], "times": [[0, 1.5]]}, r"times\[0\]\[1\]: .*1"),
        ({"trajectories": [[[1, 1]]]}, "width: .*required"),
        (CANVAS | {"width": 0, "trajectories": [[[1, 1]]]}, "width: "),
        (CANVAS | {"trajectory": []}, "trajectory: .*not permitted"),
        ([], "trajectories: .*at least 1"),
        ([[[1]]], r"trajectories\[0\]\[0\]"),
        ("strokes", "trajectories: .*not readable"),
        (np.zeros((4, 3)), r"trajectories: .*\(T, N, 2\)"),
        (np.zeros((0, 1, 2)), "trajectories: .*T in 1"),
        (np.full((2, 1, 2), np.nan), r"trajectories\[0\]\[0\]\[0\]: .*finite"),
        (np.array([[["a", "b"]]]), "trajectories: .*numbers"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(TrajectoryError, match=message):
        parse_trajectories(data)


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"{"), ("b.json", b"\xff\xfe"), ("c.npy", b"x"), ("d.json", b"")]
)
def test_an_unreadable_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrajectoryError, match=name):
        load_trajectories(tmp_path / name)
    with pytest.raises(TrajectoryError, match="no such file"):
        load_trajectories(tmp_path / "missing.json")


def test_a_file_says_its_name_when_its_content_is_wrong(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(CANVAS | {"trajectories": []}))
    with pytest.raises(TrajectoryError, match=r"t\.json: trajectories: empty"):
        load_trajectories(tmp_path / "t.json")


def camera(move, amount):
    return parse_trajectories(CANVAS | {"camera": {"move": move, "amount": amount}})


def camera_tracks(move, amount, frames=16):
    drawn = camera(move, amount)
    return stroke_tracks(drawn.camera_strokes, drawn.canvas, (384, 256), frames)[0]


@pytest.mark.parametrize("move", [move for move in CAMERA_MOVES if move != "static"])
def test_each_camera_stroke_is_as_long_as_asked(move):
    lengths = np.linalg.norm(np.diff(camera_tracks(move, 20, frames=64), axis=0), axis=-1).sum(0)
    np.testing.assert_allclose(lengths, 20, rtol=0.05 if "orbit" in move else 1e-2)


def test_camera_moves_move_the_picture_the_way_they_say():
    middle = np.array([191.5, 127.5])
    moves = {move: camera_tracks(move, 12)[[0, -1]] for move in CAMERA_MOVES}
    assert np.all(moves["static"][0] == moves["static"][1])
    np.testing.assert_allclose(np.subtract(*moves["pan_up"][::-1]), [[0, -12]] * 4, atol=1e-4)
    distance = {move: np.linalg.norm(path - middle, axis=-1) for move, path in moves.items()}
    assert np.all(distance["zoom_in"][1] > distance["zoom_in"][0])
    assert np.all(distance["zoom_out"][1] < distance["zoom_out"][0])
    np.testing.assert_allclose(distance["roll_clockwise"][0], distance["roll_clockwise"][1], rtol=1e-5)
    assert moves["roll_clockwise"][1, 0, 0] > moves["roll_clockwise"][0, 0, 0]
    far, near = (moves["orbit_left"][1] - moves["orbit_left"][0])[[0, 2], 0]
    assert near < 0 < far


def test_in_mode_camera_a_named_move_stands_for_strokes():
    assert len(camera("zoom_in", 10).strokes_of("camera")) == 4
    with pytest.raises(TrajectoryError, match="trajectories: mode object needs"):
        camera("zoom_in", 10).strokes_of("object")


@pytest.mark.parametrize(("move", "amount"), [("pan", 5), ("pan_up", -1), ("pan_up", math.nan), ("zoom_out", 500)])
def test_a_camera_move_that_cannot_be(move, amount):
    with pytest.raises(TrajectoryError, match=r"camera\.(move|amount)"):
        camera(move, amount)


def test_a_camera_is_given_once():
    both = {"camera": {"move": "pan_up", "amount": 3.0}, "camera_trajectories": [[[1, 1], [2, 2]]]}
    with pytest.raises(TrajectoryError, match="camera, camera_trajectories"):
        parse_trajectories(CANVAS | both)

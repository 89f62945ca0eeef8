"""Trajectory files of other tools: their layouts as those tools write them, read and written back."""

import io
import json

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from models.serving.cli import main
from models.strokes.stroke import Stroke, Trajectories, TrajectoryError, interpolate, shown_at, stroke_tracks
from models.strokes.trajectories import FORMAT_NAMES, load_trajectories, parse_trajectories, save_trajectories

CANVAS = (832, 480)
WIDTH, HEIGHT = CANVAS


def random_tracks(frames=81, count=5, seed=0):
    """Tracks (T, N, 2) float32 on the canvas and visibility (T, N), visible at both ends, with gaps."""
    rng = np.random.default_rng(seed)
    tracks = rng.uniform([0, 0], [WIDTH - 1, HEIGHT - 1], (frames, count, 2)).astype(np.float32)
    visibility = rng.random((frames, count)) > 0.3
    visibility[[0, -1]] = True
    return tracks, visibility


def comfyui(tracks):
    return [[{"x": float(x), "y": float(y)} for x, y in track] for track in tracks.swapaxes(0, 1)]


def ati_file(path, tracks, visibility):
    """As ATI's tools write it: x, y and visibility times 8, (N, 121, 1, 3), an .npz within torch.save."""
    array = np.concatenate([tracks, visibility[..., None]], -1).swapaxes(0, 1)[:, :, None] * 8
    packed = io.BytesIO()
    np.savez_compressed(packed, array=array.astype(np.float32))
    torch.save(packed.getvalue(), path)


def read_back(path):
    drawn = load_trajectories(path, CANVAS)
    places = np.stack([stroke.points for stroke in drawn.strokes], 1)
    return drawn, places, np.stack([stroke.visibility for stroke in drawn.strokes], 1)


def test_wan_move_arrays_are_read_with_the_visibility_beside_them_and_written_back_equal(tmp_path):
    tracks, visibility = random_tracks()
    np.save(tmp_path / "example_tracks.npy", tracks[None])
    np.save(tmp_path / "example_visibility.npy", visibility[None])
    drawn, places, shown = read_back(tmp_path / "example_tracks.npy")
    assert np.array_equal(places, tracks) and np.array_equal(shown, visibility)
    assert drawn.frames == 81
    written = save_trajectories(drawn, tmp_path / "again_tracks.npy")
    assert [path.name for path in written.paths] == ["again_tracks.npy", "again_visibility.npy"]
    assert np.array_equal(np.load(written.paths[0]), tracks[None])
    assert np.array_equal(np.load(written.paths[1]), visibility[None])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("names", [("tracks", "visibility"), ("pred_tracks", "pred_visibility")])
def test_cotracker_tensors_are_read_and_written_back_equal(tmp_path, suffix, names):
    tracks, visibility = random_tracks(49)
    arrays = dict(zip(names, (tracks[None], visibility[None]), strict=True))
    path = tmp_path / f"tracks{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(safetensors.numpy.save(arrays))
    drawn, places, shown = read_back(path)
    assert np.array_equal(places, tracks) and np.array_equal(shown, visibility)
    save_trajectories(drawn, path)
    _, places, shown = read_back(path)
    assert np.array_equal(places, tracks) and np.array_equal(shown, visibility)


def quoted(content):
    return json.dumps(json.dumps(content))


@pytest.mark.parametrize(
    "given", [np.float16, np.float64, np.int32, np.uint16, ">f4", np.asfortranarray, lambda a: a[0]]
)
@pytest.mark.parametrize(
    "shape_of_visibility",
    [lambda v: v, lambda v: v[None, ..., None].astype(np.uint8), lambda v: v[None] * np.float32(1)],
)
def test_arrays_of_any_type_and_order_are_read_and_written_back_equal(tmp_path, given, shape_of_visibility):
    tracks, visibility = random_tracks(49)
    tracks = tracks[None].astype(np.float64) + np.pi / 1000
    tracks = given(tracks) if callable(given) and not isinstance(given, type) else tracks.astype(given)
    np.save(tmp_path / "a_tracks.npy", tracks)
    np.save(tmp_path / "a_visibility.npy", shape_of_visibility(visibility))
    for path in ("a_tracks.npy", "b_tracks.npy"):
        drawn, places, shown = read_back(tmp_path / path)
        assert np.array_equal(places, tracks.reshape(places.shape)) and np.array_equal(shown, visibility)
        save_trajectories(drawn, tmp_path / "b_tracks.npy")


@pytest.mark.parametrize(
    "arrays",
    [
        lambda t, v: {"pred_tracks": t[None], "pred_visibility": v[None, ..., None], "queries": np.zeros((1, 5, 3))},
        lambda t, v: {"track_path": t, "track_visibility": v},
        lambda t, v: {"arr_0": t, "arr_1": v, "normalised": np.array(False)},
    ],
)
def test_tensors_are_found_by_other_names_and_what_is_unread_is_said(tmp_path, arrays):
    tracks, visibility = random_tracks(49)
    np.savez(tmp_path / "a.npz", **arrays(tracks, visibility))
    drawn, places, shown = read_back(tmp_path / "a.npz")
    assert np.array_equal(places, tracks) and np.array_equal(shown, visibility)
    unread = set(arrays(tracks, visibility)) & {"queries", "normalised"}
    assert drawn.notes == tuple(f"the tensors {name} have no effect" for name in unread)


def test_tensors_of_a_type_that_numpy_lacks_are_read(tmp_path):
    tracks, visibility = (torch.from_numpy(each[None]) for each in random_tracks(49))
    tensors = {"tracks": tracks.bfloat16(), "visibility": visibility}
    (tmp_path / "a.safetensors").write_bytes(safetensors.torch.save(tensors))
    _, places, shown = read_back(tmp_path / "a.safetensors")
    assert np.array_equal(places, tracks[0].bfloat16().float().numpy()) and np.array_equal(shown, visibility[0].numpy())


def test_ati_files_are_read_without_pickles_and_written_back_equal(tmp_path):
    tracks, visibility = random_tracks(121)
    ati_file(tmp_path / "a.pth", tracks, visibility)
    drawn, places, shown = read_back(tmp_path / "a.pth")
    assert np.array_equal(places, tracks) and np.array_equal(shown, visibility)
    save_trajectories(drawn, tmp_path / "b.pth")
    arrays = [
        np.load(io.BytesIO(torch.load(tmp_path / f"{name}.pth", weights_only=True)))["array"] for name in ("a", "b")
    ]
    assert arrays[0].shape == (5, 121, 1, 3) and arrays[0].dtype == arrays[1].dtype
    assert np.array_equal(*arrays)


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_would_run_code_is_refused_with_the_reason(tmp_path, capsys):
    torch.save({"array": Malicious()}, tmp_path / "a.pth")
    with pytest.raises(TrajectoryError, match=r"a\.pth: .*without executing code"):
        load_trajectories(tmp_path / "a.pth")
    torch.save(torch.zeros(3, 4), tmp_path / "b.pth")
    with pytest.raises(TrajectoryError, match=r"expected \(N, 121, 1, 3\)"):
        load_trajectories(tmp_path / "b.pth")
    np.savez(tmp_path / "c.npz", tracks=np.array([Malicious()], object))
    with pytest.raises(TrajectoryError, match=r"c\.npz: not readable"):
        load_trajectories(tmp_path / "c.npz")
    assert capsys.readouterr().out == ""


def test_comfyui_coordinates_are_read_and_written_back_equal(tmp_path):
    tracks, _ = random_tracks()
    content = comfyui(tracks)
    (tmp_path / "many.json").write_text(json.dumps(content))
    drawn, places, shown = read_back(tmp_path / "many.json")
    assert np.array_equal(places, tracks) and shown.all()
    save_trajectories(drawn, tmp_path / "again.json", "comfyui")
    assert json.loads((tmp_path / "again.json").read_text()) == content


@pytest.mark.parametrize(
    "write",
    [
        lambda content: "\ufeff" + json.dumps(content),
        str,
        quoted,
        lambda content: json.dumps(quoted(content)),
        lambda content: json.dumps(str(content)),
        lambda content: json.dumps([json.dumps(track) for track in content]),
        lambda content: json.dumps([json.dumps(content)]),
        lambda content: str([json.dumps(track) for track in content]),
    ],
)
def test_comfyui_coordinates_as_text_within_text_are_written_back_equal(tmp_path, write):
    content = [[{"x": 10.123456789012345, "y": 20}, {"x": 30.5, "y": n / 3}] for n in range(2)]
    (tmp_path / "a.json").write_text(write(content), encoding="utf-8")
    save_trajectories(load_trajectories(tmp_path / "a.json", CANVAS), tmp_path / "b.json", "comfyui")
    assert json.loads((tmp_path / "b.json").read_text()) == content


@pytest.mark.parametrize("write", [json.dumps, str, quoted, lambda track: json.dumps([json.dumps(track)])])
def test_a_single_comfyui_list_is_one_track_whatever_the_quotes(tmp_path, write):
    (tmp_path / "one.txt").write_text(write([{"x": 10, "y": 20}, {"x": 30.5, "y": 20}]))
    drawn = load_trajectories(tmp_path / "one.txt", CANVAS)
    assert [stroke.points.tolist() for stroke in drawn.strokes] == [[[10, 20], [30.5, 20]]]


def test_a_comfyui_track_that_ends_early_is_hidden_from_there_on(tmp_path):
    content = [[{"x": t, "y": 0} for t in range(n)] for n in (6, 3)]
    drawn = parse_trajectories(content, CANVAS)
    assert drawn.strokes[1].visibility.tolist() == [True] * 3 + [False] * 3
    assert "3 to 6 points long" in drawn.notes[0]
    save_trajectories(drawn, tmp_path / "a.json", "comfyui")
    assert json.loads((tmp_path / "a.json").read_text()) == content


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_every_format_carries_drawn_strokes_to_the_same_tracks(tmp_path, name):
    """Strokes drawn by hand, through each format: positions of every frame agree to a hundredth of a pixel."""
    lists = [[[100, 100], [300, 200], [500, 120]], [[60, 60]], [[-50, 200], [400, 240]]]
    drawn = parse_trajectories(
        {"width": 384, "height": 256, "trajectories": [[[x * 0.4, y * 0.4] for x, y in s] for s in lists]}
    )
    suffix = {"wan-move": ".npy", "cotracker": ".npz", "ati": ".pth"}.get(name, ".json")
    written = save_trajectories(drawn, tmp_path / f"a{suffix}", name)
    again = load_trajectories(written.paths[0])
    wanted = [interpolate(stroke, 121) for stroke in drawn.strokes]
    np.testing.assert_allclose([interpolate(stroke, 121) for stroke in again.strokes], wanted, atol=0.05)
    assert [bool(shown_at(stroke, 16).all()) for stroke in again.strokes] == [True] * 3


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_what_a_format_cannot_hold_is_named(tmp_path, name):
    data = {
        "width": 832,
        "height": 480,
        "trajectories": [[[10, 10], [20, 20], [40, 20]]],
        "times": [[0, 0.2, 1]],
        "visibility": [[True, False, True]],
        "camera_trajectories": [[[5, 5], [9, 9]]],
    }
    drawn = parse_trajectories(data)
    suffix = {"wan-move": ".npy", "cotracker": ".npz", "ati": ".pth"}.get(name, ".json")
    lost = " ".join(save_trajectories(drawn, tmp_path / f"a{suffix}", name).lost)
    said = {
        word: word in lost
        for word in ("camera strokes", "times were", "canvas", "visibility", "one position per frame")
    }
    expected = {
        "image-conductor": [],
        "authors": ["camera strokes", "times were", "canvas", "visibility"],
        "comfyui": ["camera strokes", "canvas", "visibility", "one position per frame"],
    }.get(name, ["camera strokes", "canvas", "one position per frame"])
    assert [word for word, is_said in said.items() if is_said] == expected


def test_this_projects_file_keeps_everything(tmp_path):
    data = {
        "width": 832,
        "height": 480,
        "trajectories": [[[10, 10], [20, 20], [40, 20]], [[7, 7]]],
        "times": [[0, 0.2, 1], [0]],
        "visibility": [[True, False, True], [True]],
        "camera_trajectories": [[[5, 5], [9, 9]]],
        "camera_times": [[0.25, 0.5]],
    }
    save_trajectories(parse_trajectories(data), tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == data


@pytest.mark.parametrize(("source", "target"), [(81, 16), (121, 16), (49, 81)])
def test_other_frame_counts_are_resampled_in_time_and_said(source, target):
    line = np.linspace([10, 20], [410, 220], source)[:, None]
    drawn = parse_trajectories(line, CANVAS)
    tracks, visibility = stroke_tracks(drawn.strokes, CANVAS, CANVAS, target)
    np.testing.assert_allclose(tracks[:, 0], np.linspace([10, 20], [410, 220], target), atol=1e-3)
    assert visibility.all()
    assert drawn.remarks(target) == (f"strokes of {source} frames were resampled in time to {target}",)
    assert drawn.remarks(source) == ()


def test_hidden_points_ask_for_no_motion_and_do_not_bend_the_path():
    points = np.array([[10, 10], [20, 10], [900, 470], [40, 10], [50, 10]], float)
    stroke = Stroke.even(points, np.array([True, True, False, True, True]))
    np.testing.assert_allclose(interpolate(stroke, 5)[:, 0], [10, 20, 30, 40, 50], atol=1e-9)
    assert shown_at(stroke, 5).tolist() == [True, True, False, True, True]
    assert shown_at(stroke, 9).tolist() == [True, True, True, False, False, False, True, True, True]


def test_a_grid_of_1024_tracks_is_read(tmp_path):
    x, y = np.meshgrid(np.linspace(0, 800, 32), np.linspace(0, 470, 32))
    tracks = np.stack([x.ravel(), y.ravel()], -1)[None] + np.arange(81)[:, None, None] * 0.1
    np.save(tmp_path / "grid.npy", tracks[None].astype(np.float32))
    assert len(load_trajectories(tmp_path / "grid.npy", CANVAS).strokes) == 1024


def test_a_stroke_may_enter_from_outside_the_frame_and_counts_from_there():
    drawn = parse_trajectories({"width": 100, "height": 60, "trajectories": [[[-40, 30], [60, 30]]]})
    tracks, visibility = stroke_tracks(drawn.strokes, drawn.canvas, (100, 60), 6)
    assert tracks[:, 0, 0].round().tolist() == [-40, -20, 0, 20, 40, 60]
    assert visibility[:, 0].tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[{"x": 1, "y": "2"}]], r"trajectories\[0\]\[0\]\.y: expected a number"),
        ([[{"x": 1}]], r"trajectories\[0\]\[0\]\.y"),
        ([[{"x": 1, "y": 2}], []], r"trajectories\[1\]: .*1 to 1024 points"),
        ([[{"x": 1, "y": float("nan")}]], r"trajectories\[0\]\[0\]\[1\]: .*finite"),
        ([[{"x": 10**400, "y": 2}]], r"trajectories\[0\]: .*too large"),
        (["not json"], r"trajectories\[0\]: not readable"),
        ("__import__('os')", "trajectories: not readable"),
        ("['a'" + "[" * 100000, "trajectories: not readable"),
        ("[]", "trajectories: expected a list of tracks with at least one"),
        ([[{"x": 9000, "y": 2}]], "no track is ever visible on the canvas of 832x480"),
        (np.zeros((2, 81, 3, 2)), "a batch of 2 videos"),
        (np.zeros((1, 81, 1025, 2)), "N in 1..1024"),
    ],
)
def test_what_is_wrong_in_other_formats_is_named(content, message):
    with pytest.raises(TrajectoryError, match=message):
        parse_trajectories(content, CANVAS)


def test_visibility_of_another_shape_is_named(tmp_path):
    tracks, visibility = random_tracks()
    np.save(tmp_path / "a.npy", tracks)
    np.save(tmp_path / "a_visibility.npy", visibility[:-1])
    with pytest.raises(TrajectoryError, match=r"a\.npy: visibility: expected the shape \(81, 5\)"):
        load_trajectories(tmp_path / "a.npy", CANVAS)


def test_convert_says_what_it_wrote_and_what_was_lost(tmp_path, capsys):
    tracks, visibility = random_tracks()
    np.savez(tmp_path / "a.npz", tracks=tracks[None], visibility=visibility[None])
    main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.pth"), "--format=ati", "--canvas=832x480"])
    said = capsys.readouterr().out
    assert "b.pth: 5 strokes of 121 frames in format ati" in said
    assert "the 81 frames were resampled in time to 121" in said
    assert "the canvas was left out: positions are pixels of a picture of 832x480" in said
    assert isinstance(load_trajectories(tmp_path / "b.pth", CANVAS), Trajectories)
    with pytest.raises(SystemExit, match="ends in .pth"):
        main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.npy"), "--format=ati"])
    with pytest.raises(SystemExit, match="name a format with --format"):
        main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.xyz")])

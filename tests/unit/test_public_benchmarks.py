"""`image-conductor benchmark`: the public layouts, the error, the table, and going on where a run was."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.estimators import load_estimator
from models.geometry import point_grid
from models.public_benchmarks.case import BenchmarkDataError, PublicMotion, at_frames
from models.public_benchmarks.davis import davis_cases
from models.public_benchmarks.error import end_point_error
from models.public_benchmarks.magicbench import magicbench_cases
from models.public_benchmarks.movebench import movebench_cases
from models.serving.cli import main
from models.video.write import encode_mp4
from tests.footage import moving_texture
from tests.unit import tiny

STEP = 3
RED, GREEN = (200, 0, 0), (0, 200, 0)


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_davis(folder: Path, names: tuple[str, ...] = ("car-turn", "dog"), frames: int = 4) -> Path:
    """Sequences of 854x480 that move left; the left half of each is the object, as DAVIS's palette has it."""
    for seed, name in enumerate(names):
        for index, frame in enumerate(moving_texture(frames, 854, 480, step=STEP, seed=seed)):
            picture(folder / f"JPEGImages/480p/{name}/{index:05d}.jpg", frame)
            mask = Image.fromarray(np.repeat(np.repeat(np.uint8([[1, 0]]), 427, 1), 480, 0), "P")
            mask.putpalette([0, 0, 0, 128, 0, 0])
            (folder / f"Annotations/480p/{name}").mkdir(parents=True, exist_ok=True)
            mask.save(folder / f"Annotations/480p/{name}/{index:05d}.png")
    listed = folder / "ImageSets/2017/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("\n".join(names) + "\n")
    return folder


def write_movebench(folder: Path) -> Path:
    """Two cases of 832x480 and 81 frames; a point of the second one is hidden from frame 40."""
    place = folder / "en"
    for name in ("a_1", "b_2"):
        picture(place / f"first_frame/{name}.jpg", moving_texture(1, 832, 480)[0])
        tracks = np.float32([[400, 200], [100, 300]]) + np.arange(81)[:, None, None] * np.float32([1, 0.5])
        visible = np.ones((1, 81, 2), bool)
        visible[0, 40:, 1] = name == "a_1"
        (place / "track/single").mkdir(parents=True, exist_ok=True)
        np.save(place / f"track/single/{name}_tracks.npy", tracks[None])
        np.save(place / f"track/single/{name}_visibility.npy", visible)
    (place / "single_track.txt").write_text("a_1.mp4,A dog, running, fast.\nb_2.mp4,A cat.\n", encoding="utf-8")
    return folder


def write_magicbench(folder: Path) -> Path:
    """A red and a green object on a texture that moves with them; the green one goes in frame 3."""
    video = moving_texture(5, 160, 96, step=STEP)
    (folder / "videos").mkdir(parents=True)
    (folder / "videos/0007.mp4").write_bytes(encode_mp4(video, 8))
    for index in range(5):
        mask = np.zeros((96, 160, 3), np.uint8)
        mask[20:50, 100 - STEP * index : 140 - STEP * index] = RED
        if index < 3:
            mask[60:80, 60 - STEP * index : 90 - STEP * index] = GREEN
        mask[0, 0] = (10, 0, 0)  # a blended edge
        picture(folder / f"masks/0007/annotated_frame_{index:05d}.png", mask)
    (folder / "MagicBench.csv").write_text('video_path,caption\nvideos/0007.mp4,"Two things, moving"\n')
    return folder


def tracker():
    return load_estimator("tracks", "lucas_kanade")


def test_davis_is_tracked_at_832x480_and_knows_its_objects(tmp_path):
    cases = davis_cases(write_davis(tmp_path), "val", 4, tracker())
    assert [(case.name, case.prompt) for case in cases] == [("car-turn", "car turn"), ("dog", "dog")]
    motion = cases[0].read()
    assert motion.canvas == (832, 480) and motion.tracks.shape == (4, 16, 2)
    assert motion.on_object.tolist() == [True, True, False, False] * 4
    moved = (motion.tracks[-1] - motion.tracks[0])[motion.visibility.all(0)]
    assert np.allclose(moved, [-STEP * 3, 0], atol=0.5)


def test_tracks_of_davis_may_be_given(tmp_path):
    write_davis(tmp_path / "davis", ("dog",))
    tracks = np.float32([[50, 60]]) + np.arange(4)[:, None, None] * np.float32([2, 1])
    np.save(tmp_path / "dog_tracks.npy", tracks[None])
    [case] = davis_cases(tmp_path / "davis", "val", 4, tracker(), tmp_path)
    assert np.allclose(case.read().tracks, tracks, atol=1e-3) and case.files[-1] == tmp_path / "dog_tracks.npy"


def test_movebench_is_read_as_published(tmp_path):
    first, second = movebench_cases(write_movebench(tmp_path), "single", "en")
    assert (first.name, first.prompt, second.name) == ("a_1", "A dog, running, fast.", "b_2")
    motion = second.read()
    assert motion.canvas == (832, 480) and motion.tracks.shape == (81, 2, 2)
    assert motion.visibility[:, 1].tolist() == [True] * 40 + [False] * 41
    short = at_frames(motion, 16)
    assert short.tracks[-1, 0].tolist() == [480, 240] and len(short.visibility) == 16


def test_magicbench_follows_points_on_its_objects_while_they_are_there(tmp_path):
    [case] = magicbench_cases(write_magicbench(tmp_path), 16, tracker())
    assert (case.name, case.prompt) == ("0007", "Two things, moving")
    motion = case.read()
    x, y = motion.tracks[0].T
    red = (x >= 100) & (x < 140) & (y >= 20) & (y < 50)
    green = (x >= 60) & (x < 90) & (y >= 60) & (y < 80)
    assert red.any() and green.any() and (red | green).all()
    assert motion.visibility[:, red].mean() > 0.8  # a point on the edge may leave its mask
    assert motion.visibility[:3, green].mean() > 0.8 and not motion.visibility[3:, green].any()


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            lambda folder: davis_cases(folder, "val", 4, tracker()),
            "ImageSets/2017/val.txt: no such file",
        ),
        (lambda folder: movebench_cases(folder, "multi", "zh"), "zh/multi_track.txt: no such file; expected MoveBench"),
        (lambda folder: magicbench_cases(folder, 4, tracker()), "videos: no .mp4; expected MagicBench"),
    ],
)
def test_another_folder_is_refused_with_what_was_expected(tmp_path, read, message):
    with pytest.raises(BenchmarkDataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "track/single/a_1_tracks.npy",
            np.zeros((2, 81, 2, 2)),
            r"a_1_tracks.npy: expected 4 sides, .*\(2, 81",
        ),
        ("track/single/a_1_tracks.npy", np.zeros((1, 80, 2, 2)), r"shape \(80, 2, 2\) does not go with \(81, 2\)"),
        ("track/single/a_1_visibility.npy", b"x", "a_1_visibility.npy: not readable as .npy"),
        ("first_frame/a_1.jpg", b"x", "a_1.jpg: not a readable picture"),
    ],
)
def test_a_wrong_file_of_movebench_is_named(tmp_path, file, content, message):
    path = write_movebench(tmp_path) / "en" / file
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(BenchmarkDataError, match=message):
        movebench_cases(tmp_path, "single", "en")[0].read()


def test_the_error_of_the_real_video_is_small_and_that_of_a_still_copy_is_the_motion():
    video = moving_texture(5, 96, 64, step=STEP)
    points = point_grid(96, 64, 4)
    tracks = points + np.arange(5)[:, None, None] * np.float32([-STEP, 0])
    motion = PublicMotion(Image.fromarray(video[0]).resize((192, 128)), 2 * tracks + 0.5, np.ones((5, 16), bool))
    good = end_point_error(video, motion, tracker())
    still = end_point_error(np.repeat(video[:1], 5, 0), motion, tracker())
    inside = (tracks[1:, :, 0] > -0.5).astype(float)
    expected = 2 * STEP * (inside * np.arange(1, 5)[:, None]).sum() / inside.sum()
    assert good.px < 1 and still.px == pytest.approx(expected, abs=0.2) == pytest.approx(still.still, abs=0.2)
    assert still.px_384 == pytest.approx(still.px / 2 * 4, rel=1e-3)  # 192 -> 96 -> 384 pixels wide
    assert good.object_px is None and good.steps == int(inside.sum())


def test_hidden_steps_do_not_count_and_points_of_objects_are_told_apart():
    video = np.repeat(moving_texture(1, 96, 64), 4, 0)
    tracks = np.float32([[30, 30], [60, 30]]) + np.arange(4)[:, None, None] * np.float32([[[0, 0], [8, 0]]])
    visible = np.ones((4, 2), bool)
    visible[2:, 1] = False
    motion = PublicMotion(Image.fromarray(video[0]), tracks, visible, np.array([False, True]))
    error = end_point_error(video, motion, tracker())
    assert (
        error.steps == 4 and error.px == pytest.approx(8 / 4, abs=0.1) and error.object_px == pytest.approx(8, abs=0.2)
    )
    visible[1:] = False
    assert end_point_error(video, motion, tracker()) is None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "model"
    tiny.pipeline().save_pretrained(folder)
    return folder


def benchmark(name: str, data: Path, output: Path, model: Path, *options: str) -> dict:
    main(["benchmark", name, f"--data={data}", f"--output={output}", f"--model={model}", *options])
    return json.loads((output / "figures.json").read_text())


def test_the_command_prints_a_table_with_quoted_figures_and_goes_on_where_it_was(tmp_path, model, capsys, monkeypatch):
    output = tmp_path / "out"
    figures = benchmark("davis", write_davis(tmp_path / "davis"), output, model, "--grid=3", "--limit=1")
    assert figures["cases"] == 1 and figures["epe"]["px"]["n"] == 1
    assert np.isfinite([figures["epe"][name]["mean"] for name in ("px", "px_384", "still", "object_px", "lost")]).all()
    assert (output / "videos/car-turn.mp4").is_file()
    said = capsys.readouterr().out
    assert "Image Conductor (quoted)" in said and "91.6" in said and "5.35" in said and "2.71" in said
    assert (output / "table.txt").read_text() in said
    made = (output / "videos/car-turn.mp4").stat().st_mtime_ns
    again = benchmark("davis", tmp_path / "davis", output, model, "--grid=3")
    assert again["cases"] == 2 and again["videos"]["car-turn"] == figures["videos"]["car-turn"]
    assert (output / "videos/car-turn.mp4").stat().st_mtime_ns == made
    monkeypatch.setattr("models.serving.load.load_model", None)  # all cases are there: no model is loaded
    assert benchmark("davis", tmp_path / "davis", output, model, "--grid=3") == again
    monkeypatch.undo()
    benchmark("davis", tmp_path / "davis", output, model, "--grid=3", "--limit=1", "--seed=5")
    assert (output / "videos/car-turn.mp4").stat().st_mtime_ns != made


@pytest.mark.parametrize(("name", "write"), [("movebench", write_movebench), ("magicbench", write_magicbench)])
def test_the_other_benchmarks_run_from_the_command_line(tmp_path, model, name, write):
    figures = benchmark(name, write(tmp_path / "data"), tmp_path / "out", model)
    assert figures["epe"]["px"]["mean"] > 0 and not figures["skipped"]


def test_help_shows_the_layout(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "movebench", "--help"])
    said = capsys.readouterr().out
    assert "en/track/single/<id>_tracks.npy" in said and "end-point" in said

"""`image-conductor track`: the motion of a video as strokes, and how tracks are thinned."""

import numpy as np
import pytest

from models.serving.cli import main
from models.strokes.stroke import Stroke, even_times, interpolate, stroke_tracks
from models.strokes.thinning import thinned
from models.strokes.trajectories import load_trajectories
from models.video.write import encode_mp4
from tests.footage import moving_texture

FRAMES, STEP = 10, 2


@pytest.fixture
def video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode_mp4(moving_texture(FRAMES, 96, 64, step=STEP), 8))
    return tmp_path / "a.mp4"


@pytest.mark.parametrize("where", [["--point=70,30", "--point=60.5,40"], ["--grid=3"]])
def test_strokes_follow_the_video(video, tmp_path, where, capsys):
    output = tmp_path / "strokes.json"
    main(["track", f"--video={video}", f"--output={output}", *where])
    drawn = load_trajectories(output)
    assert (drawn.canvas, drawn.frames) == ((96, 64), FRAMES)
    tracks, visibility = stroke_tracks(drawn.strokes, drawn.canvas, (96, 64), FRAMES)
    whole = visibility.all(0)
    assert whole.sum() >= 2
    wanted = [-STEP * (FRAMES - 1), 0]
    np.testing.assert_allclose((tracks[-1] - tracks[0])[whole], np.tile(wanted, (whole.sum(), 1)), atol=1)
    assert f"{len(drawn.strokes)} strokes" in capsys.readouterr().out


def test_thinned_strokes_stay_near_the_track_with_few_points(video, tmp_path):
    output = tmp_path / "strokes.json"
    main(["track", f"--video={video}", f"--output={output}", "--point=70,30", "--thin=1"])
    (stroke,) = load_trajectories(output).strokes
    assert len(stroke.points) <= 4


@pytest.mark.parametrize("tolerance", [0.5, 3.0])
def test_thinning_keeps_every_frame_within_the_tolerance(tolerance):
    angle = even_times(81)[:, None] * 5
    stroke = Stroke.even(np.concatenate([200 + 90 * np.cos(angle), 120 + 60 * np.sin(angle)], 1))
    few = thinned(stroke, tolerance)
    assert len(few.points) < 25
    off = np.linalg.norm(interpolate(few, 81) - stroke.points, axis=1)
    assert off.max() <= tolerance + 1e-6
    resting = thinned(Stroke.even(np.full((9, 2), 5.0) + 0.01 * np.arange(18).reshape(9, 2)), tolerance)
    assert len(resting.points) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point=200,30"], "--point: every point must lie inside the video's 96x64"),
        (["--least-motion=500"], "--least-motion: no track moves by 500"),
        (["--video=missing.mp4"], "--video: missing.mp4: file not found"),
    ],
)
def test_what_is_wrong_is_named(video, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        main(["track", f"--video={video}", f"--output={tmp_path / 'a.json'}", *options])

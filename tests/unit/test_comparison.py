"""Any method's videos: `image-conductor score`, and what the votes of a study come to."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.comparison.preferences import Vote, preferences, strengths
from models.comparison.videos import find_items
from models.estimators import load_tracker_of_generated
from models.evaluation.paper import TABLE_1
from models.metrics import trajectory_error
from models.serving.cli import main
from models.video.read import read_video
from models.video.write import encode_gif, encode_mp4
from tests.footage import moving_texture

FRAMES, STEP = 6, 2


def write(folder: Path, name: str, video: np.ndarray, suffix: str = ".mp4") -> None:
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((encode_gif if suffix == ".gif" else encode_mp4)(video, 8))


def write_stroke(folder: Path, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"width": 96, "height": 64, "trajectories": [[start, end]]}))


@pytest.fixture
def folders(tmp_path):
    """Two strokes on each of two pictures; `ours` follows them, `still` does not."""
    for seed, picture in enumerate(("lake", "road")):
        for name, y in (("high", 20.0), ("low", 44.0)):
            video = moving_texture(FRAMES, 96, 64, step=STEP, seed=seed)
            write(tmp_path / "ours", f"{picture}/{name}", video)
            write(tmp_path / "still", f"{picture}/{name}", np.repeat(video[:1], FRAMES, 0))
            write_stroke(tmp_path / "strokes", f"{picture}/{name}", (60, y), (60 - STEP * (FRAMES - 1), y))
    return tmp_path


def score(folder: Path, *methods: str, **options) -> tuple[dict, Path]:
    output = folder / "out" / "metrics.json"
    options = {"trajectories": folder / "strokes", "mode": "object", "output": output} | options
    videos = [str(folder / method) for method in methods]
    main(["score", "--videos", *videos, *(f"--{key}={value}" for key, value in options.items())])
    return json.loads(output.read_text()), output


def test_score_puts_methods_in_one_table_with_the_papers_beside(folders, capsys):
    figures, _ = score(folders, "ours", "still")
    ours, still = figures["methods"]["ours"], figures["methods"]["still"]
    assert ours["px"] < 2 < still["px"]
    assert still["px"] == pytest.approx(still["still_px"], rel=0.05)
    assert still["still_px"] == pytest.approx(STEP * 3 * 4, rel=1e-4)  # mean of 1..5 steps, at 384
    assert (ours["n"], ours["failures"]) == (4, 0)
    assert ours["second"]["px"] < 2 < still["second"]["px"]
    assert figures["trackers"]["agree"] and figures["trackers"]["kendall_tau"] == 1
    assert figures["paper"]["px"] == {row.method: row.obj_mc for row in TABLE_1}
    assert "quoted" in figures["paper"]["note"]
    said = capsys.readouterr().out
    assert said.index("\nours") < said.index("\nstill") < said.index("\nImage Conductor (quoted)")


def test_score_is_the_evaluations_own_measure(folders):
    figures, _ = score(folders, "ours")
    frames, _ = read_video(folders / "ours/lake/high.mp4")
    wanted = np.stack([60 - STEP * np.arange(FRAMES), np.full(FRAMES, 20.0)], -1)[:, None]
    error = trajectory_error(*load_tracker_of_generated("lucas_kanade")(frames, wanted[0]), wanted)
    assert figures["methods"]["ours"]["videos"]["lake/high"]["px"] == pytest.approx(4 * error.px, abs=1e-3)


def test_score_of_camera_strokes_is_cam_mc(folders):
    figures, _ = score(folders, "ours", mode="camera")
    assert figures["metric"] == "cam_mc"
    assert figures["paper"]["px"]["Image Conductor"] == 33.49


def test_where_a_file_has_both_camera_strokes_are_cam_mc(folders):
    strokes = {
        "width": 96,
        "height": 64,
        "trajectories": [[[20, 20], [20, 50]]],
        "camera_trajectories": [[[60, 30], [60 - STEP * (FRAMES - 1), 30]]],
    }
    for path in (folders / "strokes").rglob("*.json"):
        path.write_text(json.dumps(strokes))
    assert score(folders, "ours", mode="camera")[0]["methods"]["ours"]["px"] < 2
    assert score(folders, "ours")[0]["methods"]["ours"]["px"] > 5
    for path in (folders / "strokes").rglob("*.json"):
        path.write_text(json.dumps(strokes | {"trajectories": []}))
    assert score(folders, "ours", mode="camera")[0]["methods"]["ours"]["px"] < 2
    with pytest.raises(SystemExit, match="mode object needs at least one stroke"):
        score(folders, "ours")


def test_a_gif_without_its_equal_frames_is_refused(tmp_path):
    video = moving_texture(FRAMES, 96, 64, step=STEP)
    video[3] = video[2]
    write(tmp_path / "ours", "a", video, ".gif")
    write_stroke(tmp_path / "strokes", "a", (60, 30), (50, 30))
    with pytest.raises(SystemExit, match=r"a\.gif: a GIF whose 5 frames .*give the video as .mp4"):
        score(tmp_path, "ours")


def test_pictures_are_folders_and_the_interval_knows_them(folders):
    items = find_items([folders / "ours"], folders / "strokes")
    assert [item.name for item in items] == ["lake/high", "lake/low", "road/high", "road/low"]
    assert [item.picture for item in items] == ["lake", "lake", "road", "road"]
    figures, _ = score(folders, "still")
    by_picture = [
        figures["methods"]["still"]["videos"][f"{p}/{n}"]["px"] for p in ("lake", "road") for n in ("high", "low")
    ]
    lake, road = np.mean(by_picture[:2]), np.mean(by_picture[2:])
    assert figures["methods"]["still"]["ci95"] == pytest.approx(sorted([lake, road]), abs=1e-3)


def test_videos_of_any_size_and_length_are_scored_alike(tmp_path):
    large = np.repeat(np.repeat(moving_texture(FRAMES, 96, 64, step=STEP), 2, 1), 2, 2)
    write(tmp_path / "large", "a", large, ".gif")
    write_stroke(tmp_path / "strokes", "a", (60, 30), (50, 30))
    figures, _ = score(tmp_path, "large")
    assert figures["methods"]["large"]["px"] < 2
    assert figures["methods"]["large"]["still_px"] == pytest.approx(STEP * 3 * 4, rel=0.01)


def test_a_stroke_that_leaves_the_frame_counts_while_it_is_inside(tmp_path):
    write(tmp_path / "ours", "a", moving_texture(FRAMES, 96, 64, step=STEP))
    write_stroke(tmp_path / "strokes", "a", (5, 30), (-5, 30))
    figures, _ = score(tmp_path, "ours")
    assert figures["methods"]["ours"]["still_px"] == pytest.approx(STEP * 1.5 * 4, rel=1e-3)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "ours/lake/low.mp4").unlink(), "ours: no video for lake/low; a failed one counts"),
        (lambda f: (f / "strokes/lake/low.json").unlink(), "strokes: no trajectories for lake/low"),
        (lambda f: (f / "ours/lake/low.mp4").write_bytes(b"x"), "low.mp4: cannot be decoded"),
        (lambda f: (f / "strokes/lake/low.json").write_text("[]"), "low.json: trajectories"),
        (lambda f: (f / "ours/lake/low.gif").write_bytes(b"x"), "have one name; remove one"),
        (lambda f: (f / "strokes").rename(f / "moved"), "strokes: no such folder"),
        (lambda f: write_stroke(f / "strokes", "lake/low", (1, 30), (-90, 30)), "low.mp4: no stroke stays"),
    ],
)
def test_what_does_not_match_is_named(folders, break_it, message):
    break_it(folders)
    with pytest.raises(SystemExit, match=message):
        score(folders, "ours")


def test_two_folders_of_one_name_are_refused(folders):
    (folders / "other").mkdir()
    (folders / "ours").rename(folders / "other" / "still")
    with pytest.raises(SystemExit, match="names of their own"):
        score(folders, "still", "other/still")


def votes_of(participants: int, share: float, winner: str = "a", loser: str = "b", question="overall") -> list[Vote]:
    """Ten votes by each participant, of which `winner` gets `share`."""
    pairs = [(winner, loser) if n < round(10 * share) else (loser, winner) for n in range(10)]
    return [Vote(person, question, *pair) for person in range(participants) for pair in pairs]


def test_two_methods_have_the_shares_of_their_votes():
    figures = preferences(votes_of(12, 0.7))
    assert figures["participants"] == 12
    a, b = (figures["questions"]["overall"][name] for name in "ab")
    assert (a["share"], b["share"], a["n"]) == (0.7, 0.3, 120)
    assert a["strength"] == pytest.approx(0.7, abs=1e-3) and a["strength"] + b["strength"] == pytest.approx(1)
    assert a["share_ci95"] == [0.7, 0.7]  # every participant says the same


def test_the_interval_is_wider_where_participants_differ():
    divided = [vote for n in range(12) for vote in votes_of(1, 1.0 if n < 8 else 0.0)]
    divided = [vote._replace(participant=number // 10) for number, vote in enumerate(divided)]
    low, high = preferences(divided)["questions"]["overall"]["a"]["share_ci95"]
    assert low < 0.45 and high > 0.85


def test_one_participant_has_no_interval():
    assert preferences(votes_of(1, 0.7))["questions"]["overall"]["a"]["share_ci95"] is None


def test_questions_are_counted_apart():
    figures = preferences(votes_of(3, 0.7) + votes_of(3, 0.2, question="motion"))["questions"]
    assert figures["motion"]["a"]["share"] == 0.2 and "quality" not in figures


def test_bradley_terry_finds_the_strengths_that_made_the_votes():
    true = np.array([0.5, 0.3, 0.15, 0.05])
    wins = 1e4 * true[:, None] / (true[:, None] + true) * (1 - np.eye(4))
    assert strengths(wins) == pytest.approx(true, abs=1e-3)


def test_bradley_terry_ranks_methods_that_never_met():
    wins = np.zeros((3, 3))
    wins[0, 1], wins[1, 0], wins[1, 2], wins[2, 1] = 8, 2, 8, 2
    a, b, c = strengths(wins)
    assert a / b == pytest.approx(4, rel=0.1) and b / c == pytest.approx(4, rel=0.1)


def test_a_method_that_never_lost_keeps_a_finite_strength():
    assert strengths(np.array([[0.0, 10.0], [0.0, 0.0]]))[0] == pytest.approx(10.05 / 10.1, abs=1e-4)


def test_no_vote_is_no_figure():
    with pytest.raises(ValueError, match="none yet"):
        preferences([])


def test_a_stroke_that_enters_later_is_followed_from_the_frame_that_it_is_seen_in(tmp_path):
    """The texture moves left by 4 px a frame: a stroke that enters with it is obeyed, one that enters slower is not."""
    write(tmp_path / "ours", "with", moving_texture(9, 96, 64, step=4))
    write_stroke(tmp_path / "strokes", "with", (104, 30), (72, 30))
    write(tmp_path / "ours", "slower", moving_texture(9, 96, 64, step=4))
    write_stroke(tmp_path / "strokes", "slower", (98, 30), (82, 30))
    videos = score(tmp_path, "ours")[0]["methods"]["ours"]["videos"]
    assert videos["with"]["px"] < 0.2 * videos["with"]["still_px"]
    assert videos["slower"]["px"] > 0.7 * videos["slower"]["still_px"]


def test_hidden_steps_do_not_count_and_other_formats_are_scored(tmp_path):
    """Tracks that are wrong where they are hidden: an array of CoTracker's layout scores as if it were right there."""
    write(tmp_path / "ours", "a", moving_texture(FRAMES, 96, 64, step=STEP))
    tracks = np.stack([60.0 - STEP * np.arange(FRAMES), np.full(FRAMES, 30.0)], -1)[:, None].astype(np.float32)
    visibility = np.ones((FRAMES, 1), bool)
    (tmp_path / "strokes").mkdir()

    def px():
        np.savez(tmp_path / "strokes" / "a.npz", tracks=tracks[None], visibility=visibility[None])
        return score(tmp_path, "ours", canvas="96x64")[0]["methods"]["ours"]["px"]

    right = px()
    tracks[2:4] += 25
    wrong = px()
    visibility[2:4] = False
    assert right < 2 < 10 < wrong
    assert px() == pytest.approx(right, abs=0.5)

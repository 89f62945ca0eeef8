import numpy as np
import pytest

from stages.data.arrays import read_draws, read_poses, read_tracks, write_draws, write_poses, write_tracks
from stages.data.tables import CAPTIONS, CLIPS, ContractError, read_table, write_table


def kept(video="a.mp4", **changes):
    measured = {
        "motion_score": 1.5,
        "scene_start": 0,
        "scene_end": 20,
        "first_frame": 2,
        "interval": 1,
        "camera": "pan",
    }
    size = {"width": 96, "height": 64, "fps": 12.0}
    row = {"video": video, "clip_id": video, "status": "kept", "step": None, "reason": "", "subset": "train"}
    return row | measured | size | changes


def dropped(video, **changes):
    row = {"video": video, "clip_id": video, "status": "dropped", "step": "decode", "reason": "why"}
    return dict.fromkeys(kept()) | row | changes


def test_a_table_comes_back_as_it_was(tmp_path):
    write_table(tmp_path / "c.parquet", [kept(), dropped("b.mp4")], CLIPS)
    rows = read_table(tmp_path / "c.parquet", CLIPS)
    first = rows.iloc[0].dropna().to_dict()
    assert first == {name: value for name, value in kept().items() if value is not None}
    assert rows["interval"].isna().tolist() == [False, True] and rows["interval"].dtype == "Int64"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([kept(), kept(clip_id="b")], "video must be unique"),
        ([kept(), kept("b.mp4", clip_id="a.mp4")], "a kept clip is unique"),
        ([dropped("a.mp4", reason="")], "a dropped video needs a step and a reason"),
        ([dropped("a.mp4", step=None)], "a dropped video needs a step and a reason"),
        ([kept(status="maybe")], "status is kept or dropped"),
        ([kept(motion_score=None)], "a kept clip is measured"),
        ([kept(subset="eval")], "subset is train, validation or test"),
        ([kept(reason=None)], "reason: empty in 1 rows"),
    ],
)
def test_rows_that_break_the_contract_are_not_written(tmp_path, rows, message):
    with pytest.raises(ContractError, match=message):
        write_table(tmp_path / "c.parquet", rows, CLIPS)
    assert not list(tmp_path.iterdir())


def test_the_same_content_may_be_dropped_twice(tmp_path):
    write_table(tmp_path / "c.parquet", [kept(), dropped("b.mp4", clip_id="a.mp4")], CLIPS)


def test_an_empty_table(tmp_path):
    write_table(tmp_path / "c.parquet", [], CAPTIONS)
    assert read_table(tmp_path / "c.parquet", CAPTIONS).empty


def test_missing_damaged_and_foreign_tables_are_named(tmp_path):
    path = tmp_path / "c.parquet"
    with pytest.raises(ContractError, match="c.parquet: no such file; run the stage"):
        read_table(path, CLIPS)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(ContractError, match="c.parquet: not a parquet file"):
        read_table(path, CLIPS)
    write_table(path, [], CAPTIONS)
    with pytest.raises(ContractError, match="column .*motion_score.* is missing"):
        read_table(path, CLIPS)


def test_tracks_and_draws_come_back_as_they_were(tmp_path):
    tracks, visibility = np.random.default_rng(0).random((4, 9, 2), np.float32), np.ones((4, 9), bool)
    write_tracks(tmp_path / "t.npz", tracks, visibility)
    write_draws(tmp_path / "d.npz", np.array([[3, 1, -1]], np.int32))
    assert np.array_equal(read_tracks(tmp_path / "t.npz").tracks, tracks)
    assert read_draws(tmp_path / "d.npz").tolist() == [[3, 1, -1]]


@pytest.mark.parametrize(
    ("tracks", "visibility", "field"),
    [
        (np.zeros((4, 9, 2)), np.ones((4, 9), bool), "tracks"),
        (np.full((4, 9, 2), np.nan, np.float32), np.ones((4, 9), bool), "tracks"),
        (np.zeros((4, 9, 2), np.float32), np.ones((4, 8), bool), "visibility"),
    ],
)
def test_wrong_tracks_are_named(tmp_path, tracks, visibility, field):
    with pytest.raises(ContractError, match=f"t.npz: {field} must be"):
        write_tracks(tmp_path / "t.npz", tracks, visibility)


def test_poses_come_back_as_they_were_and_wrong_ones_are_named(tmp_path):
    poses, intrinsics = np.random.default_rng(0).random((4, 3, 4)), np.ones((4, 4))
    poses[1], intrinsics[1] = np.nan, np.nan
    write_poses(tmp_path / "p.npz", poses, intrinsics)
    assert np.array_equal(read_poses(tmp_path / "p.npz").poses, poses, equal_nan=True)
    for wrong in ((poses[:3], intrinsics), (poses.astype(np.float32), intrinsics), (np.ones((4, 3, 4)), intrinsics)):
        with pytest.raises(ContractError, match="p.npz: .* must be"):
            write_poses(tmp_path / "p.npz", *wrong)


def test_damaged_tracks_are_named(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ContractError, match="t.npz: damaged"):
        read_tracks(tmp_path / "t.npz")
    write_draws(tmp_path / "cut.npz", np.zeros((2, 3), np.int32))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-40])
    with pytest.raises(ContractError, match="cut.npz: damaged"):
        read_draws(tmp_path / "cut.npz")
    with pytest.raises(ContractError, match="no such file"):
        read_draws(tmp_path / "none.npz")

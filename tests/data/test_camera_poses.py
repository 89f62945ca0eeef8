"""RealEstate10K: each clip comes with the camera at its own frames, also after files change or the run is killed."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.curation.outcome import Dropped, Facts
from stages import clips, collect
from stages.data.arrays import read_poses
from stages.data.curated import curated_clips
from stages.data.paths import measures_folder, poses_folder, source_poses
from stages.data.shards import shard_of
from stages.data.tables import read_clips, read_manifest
from tests.data.test_curation_stages import contents, make_params, run, times, workspace  # noqa: F401
from tests.footage import moving_texture, write_video

INPUTS = Path("inputs/realestate10k")
SPEED = 20.0  # degrees a second that the camera turns
STAMPS = [100 * (i + i // 3) for i in range(60)]  # milliseconds of the video's frames: every third gap is longer


@pytest.fixture(autouse=True)
def videos(workspace):  # noqa: F811
    write_video(INPUTS / "videos/room.mp4", moving_texture(60, 160, 120), times=STAMPS)


def write_camera(name, seconds, speed=SPEED, video="room"):
    lines = [f"https://www.youtube.com/watch?v={video}"]
    for time in seconds:
        matrix = np.column_stack([Rotation.from_euler("y", speed * time, degrees=True).as_matrix(), [0, 0, time]])
        row = [0.5, 0.9, 0.5, 0.5, 0, 0, *matrix.ravel()]
        lines.append(" ".join([str(round(time * 1e6)), *map(repr, map(float, row))]))
    path = INPUTS / "cameras" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def params(**changes):
    values = {"drop_share": {"mixed": 0.0, "camera": 0.0}, "camera": make_params().clips.camera.model_dump()}
    values["camera"]["classes"] = values["camera"]["max_object_share"] = {"mixed": None, "camera": None}
    cameras = {"cameras": str(INPUTS / "cameras"), "videos": str(INPUTS / "videos")}
    changed = {f"clips__{name}": value for name, value in values.items()} | changes
    return make_params(source="realestate10k", collect__realestate10k=cameras, **changed)


def curate(stages=(collect, clips), **changes):
    run(params(**changes), "camera", stages)


def posed(video="a.txt"):
    row = read_clips("camera").set_index("video").loc[video]
    return row, read_poses(poses_folder("camera").path(row["clip_id"]))


def test_each_frame_has_the_pose_of_its_time():
    write_camera("a.txt", np.arange(1.25, 6.0, 0.031))
    curate(video__clip_frames=8, clips__interval=[3, 3], video__frames=8)
    row, (poses, intrinsics) = posed()
    seconds = np.array([stamp for stamp in STAMPS if stamp >= 1250]) / 1000
    expected = seconds[row["first_frame"] + 3 * np.arange(8)]
    turned = Rotation.from_matrix(poses[:, :, :3]).as_euler("yxz", degrees=True)
    assert np.allclose(turned[:, 0], SPEED * expected, atol=1e-3)
    assert poses.shape == (8, 3, 4) and intrinsics.shape == (8, 4)
    assert np.allclose(intrinsics, [0.5, 0.9 * 72 / 64, 0.5, 0.5])  # scaled to 96x72, of which 64 rows are seen


def test_the_data_set_gives_the_poses_with_the_clip():
    write_camera("a.txt", np.arange(1, 6, 0.033))
    run(params(), "camera")
    (clip,) = curated_clips("camera")
    assert np.isfinite(read_poses(clip.poses).poses).all()


def test_frames_in_a_gap_of_the_camera_file_have_no_pose():
    write_camera("a.txt", [*np.arange(0, 3, 0.033), *np.arange(4.5, 8, 0.033)])
    curate(clips__interval=[3, 3])
    _, (poses, _) = posed()
    unknown = np.isnan(poses).all((1, 2))
    assert unknown.any() and not unknown.all() and np.isfinite(poses[~unknown]).all()


def test_a_nothing_changed_run_makes_nothing_and_every_run_the_same():
    write_camera("a.txt", np.arange(1, 6, 0.033))
    curate()
    before, stamps = contents(), times()
    curate()
    assert contents() == before and times() == stamps
    curate(compute__backend="processes")
    assert contents() == before


def test_another_camera_file_makes_other_poses_and_leaves_none_behind():
    write_camera("a.txt", np.arange(1, 6, 0.033))
    write_camera("b.txt", np.arange(1, 5, 0.033))
    curate(clips__near_duplicates=None)
    (old, old_poses), (kept, _) = posed(), posed("b.txt")
    shard = shard_of(poses_folder("camera").path(kept["clip_id"]))
    stamp = shard.stat().st_mtime_ns
    write_camera("a.txt", np.arange(1, 6, 0.033), speed=-SPEED)
    curate(clips__near_duplicates=None)
    new, new_poses = posed()
    assert new["clip_id"] != old["clip_id"] and not np.allclose(new_poses.poses, old_poses.poses)
    assert poses_folder("camera").ids() == {new["clip_id"], kept["clip_id"]}
    assert shard.stat().st_mtime_ns == stamp
    named = read_manifest("camera")["poses"]
    assert {str(source_poses("camera").path(name)) for name in source_poses("camera").ids()} == set(named)
    (INPUTS / "cameras/a.txt").unlink()
    curate(clips__near_duplicates=None)
    assert poses_folder("camera").ids() == {kept["clip_id"]}


def test_parts_of_one_film_draw_their_frames_differently(monkeypatch):
    write_camera("a.txt", np.arange(1, 3, 0.033))
    write_camera("b.txt", np.arange(3, 5, 0.033))
    draws = []

    def drop(path, settings, cuts, flow, rng_of, scenes, *others):
        draws.append((scenes, *rng_of(0).integers(1_000_000, size=2)))
        return [Dropped("length", "too short", Facts())]

    monkeypatch.setattr(clips.clip, "curate_scenes", drop)
    for scenes in ("longest", "all"):
        curate(clips__scenes=scenes)
    assert len(set(draws)) == 4 and len({draw[1:] for draw in draws}) == 4


def test_lost_poses_are_made_again():
    write_camera("a.txt", np.arange(1, 6, 0.033))
    curate()
    before = contents()
    row, _ = posed()
    shard_of(poses_folder("camera").path(row["clip_id"])).unlink()
    curate()
    assert contents() == before


def test_poses_are_whole_before_the_measurements(monkeypatch):
    """A run that dies while it writes the poses leaves no measurement that would say that all is there."""
    write_camera("a.txt", np.arange(1, 6, 0.033))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(clips, "write_poses", die)
        with pytest.raises(KeyboardInterrupt):
            curate()
    assert not measures_folder("camera").ids()
    curate()
    assert posed()[1].poses.shape == (16, 3, 4)


def test_what_cannot_be_used_is_a_row():
    write_camera("a.txt", np.arange(1, 6, 0.033))
    write_camera("gone.txt", np.arange(1, 6, 0.033), video="gone")
    (INPUTS / "cameras/bad.txt").write_text("address\n1 2 3\n")
    curate()
    rows = read_clips("camera").set_index("video")
    assert rows["status"].to_dict() == {"a.txt": "kept", "bad.txt": "dropped", "gone.txt": "dropped"}
    assert rows.loc["gone.txt", "reason"] == "file not found: gone.mp4"
    assert rows.loc["bad.txt", "reason"] == "not a RealEstate10K camera file: line 2: expected 19 numbers"

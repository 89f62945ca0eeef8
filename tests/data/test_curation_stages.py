"""The curated data obeys its contracts, whatever goes in, and again after videos come, go, or the run is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from models.curation.subset import SUBSETS, subset_of
from models.pictures.album import AlbumError, write_album
from models.video.read import read_video
from stages import captions, clips, collect, sparse_flows, tracks
from stages.data.arrays import read_draws, read_tracks
from stages.data.curated import curated_clips
from stages.data.footage import read_clip
from stages.data.paths import (
    captions_file,
    clip_videos,
    clips_folder,
    measures_folder,
    tracks_file,
    tracks_folder,
    videos_folder,
)
from stages.data.shards import as_file, read_item, shard_of
from stages.data.tables import (
    CAPTIONS,
    ContractError,
    read_clips,
    read_manifest,
    read_shared,
    read_table,
    read_track_facts,
)
from stages.params import Params
from tests.footage import ROOT, moving_texture, real_videos, write_broken, write_unusual, write_video

STAGES = (collect, clips, captions, tracks, sparse_flows)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_params(backend="serial", source="folder", **changes):
    values = yaml.safe_load((ROOT / "profiles" / "pocket.yaml").read_text())
    values["collect"]["source"] = source
    values["collect"]["synthetic"] |= {"mixed": 4, "camera": 3}
    values["clips"]["drop_share"]["mixed"] = 0.0
    values["compute"] |= {"backend": backend, "workers": 2}
    for key, value in changes.items():
        section, name = key.split("__")
        values[section][name] = value
    return Params.model_validate(values)


def run(params, split="mixed", stages=STAGES):
    for stage in stages:
        stage.run(split, params)


def add_video(name, seed, frames=24, **kwargs):
    return write_video(Path("inputs/mixed") / name, moving_texture(frames, 160, 120, seed=seed), **kwargs)


def contents(folder="data"):
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def times():
    return {str(p): p.stat().st_mtime_ns for p in Path("data").rglob("*") if p.suffix in {".mp4", ".npz", ".zip"}}


def test_synthetic_videos_become_curated_clips():
    params = make_params(source="synthetic", clips__held_out=0.5)
    for split, count in (("mixed", 4), ("camera", 3)):
        run(params, split)
        rows = read_clips(split)
        assert len(rows) == count and (rows["status"] == "kept").all()
        for clip in curated_clips(split):
            frames = read_clip(clip.video)
            points, visibility = read_tracks(clip.tracks)
            assert frames.shape == (16, 64, 96, 3) and points.shape == (16, 256, 2) and visibility[0].all()
            assert read_draws(clip.draws).shape == (4, 8) and " background" in clip.caption
        parts = [curated_clips(split, subset) for subset in SUBSETS]
        assert sum(map(len, parts)) == count
        for row in read_manifest(split).itertuples():
            with as_file(Path(row.file), Path()) as video:
                assert read_tracks(Path(row.truth)).tracks.shape[:2] == (len(read_video(video)[0]), 256)


def write_small_album(folder):
    """An album in which the pictures of each subset have one colour channel of their own."""
    rows, rng = [], np.random.default_rng(0)
    for channel, subset in enumerate(SUBSETS):
        for kind, size in (("photograph", (300, 450, 3)), ("cutout", (60, 60, 4))):
            pixels = np.zeros(size, np.uint8)
            pixels[..., channel] = rng.integers(90, 255, size[:2])
            pixels[..., 3:] = 255
            number = f"{len(rows):064x}"
            row = {"sha256": number, "package": "here", "file": number, "licence": "none", "kind": kind}
            rows.append((row | {"label": f"a {subset} {kind}", "split": subset}, pixels))
    write_album(folder, rows)


def test_a_video_made_of_pictures_is_on_the_side_of_its_pictures():
    write_small_album(Path("album"))
    params = make_params(source="synthetic", clips__held_out=0.4, clips__validation=0.3, clips__near_duplicates=None)
    small = {"world": "pictures", "pictures": "album", "mixed": 12, "width": 48, "height": 32, "frames": (18, 18)}
    synthetic = params.collect.synthetic.model_copy(update=small)
    params = params.model_copy(update={"collect": params.collect.model_copy(update={"synthetic": synthetic})})
    run(params, stages=(collect, clips))
    rows = read_clips("mixed").set_index("video")
    assert set(rows["subset"]) == set(SUBSETS)
    for row in read_manifest("mixed").itertuples():
        with as_file(Path(row.file), Path()) as video:
            shown = SUBSETS[int(read_video(video)[0].mean((0, 1, 2)).argmax())]
        assert rows.loc[row.video, "subset"] == row.subset == shown and f"a {shown} photograph" in row.caption
    assert (read_shared("mixed")["subset"].notna()).all()
    shutil.rmtree("album")
    with pytest.raises(AlbumError, match=r"^album: no manifest.parquet; `python -m models\.pictures\.fetch` makes it$"):
        collect.run("mixed", params)


def test_every_mode_and_every_run_gives_the_same_bytes(tmp_path, monkeypatch):
    results = []
    for name, backend in (("a", "serial"), ("b", "processes")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run(make_params(source="synthetic", backend=backend), stages=(collect, clips, tracks))
        results.append(contents())
    assert results[0] == results[1] and len(results[0]) > 15


def test_a_finished_stage_makes_nothing_again():
    run(make_params(source="synthetic"))
    before, stamps = contents(), times()
    run(make_params(source="synthetic"))
    assert contents() == before and times() == stamps
    measures_folder("mixed").path(read_clips("mixed")["clip_id"][0]).write_text('[{"clip_id": "cut o')
    clips.run("mixed", make_params(source="synthetic"))
    assert contents() == before


def test_adding_a_video_costs_one_video():
    for seed in range(3):
        add_video(f"{seed}.mp4", seed)
    run(make_params())
    rows, stamps = read_clips("mixed").set_index("video"), times()
    add_video("0a.mp4", seed=9)
    run(make_params())
    after, new = read_clips("mixed").set_index("video"), times()
    (added,) = (clip for clip in curated_clips("mixed") if clip.clip_id == after.loc["0a.mp4", "clip_id"])
    assert list(videos_folder("mixed").iterdir()) == [videos_folder("mixed") / "manifest.parquet"]
    measures = measures_folder("mixed").path(added.clip_id)
    touched = {str(shard_of(part)) for part in (added.video, measures, added.tracks, added.draws)}
    assert all(new[path] == stamp for path, stamp in stamps.items() if path not in touched)
    assert not new.keys() - stamps.keys() - touched
    assert after.loc[rows.index].equals(rows)


def test_a_video_that_changes_or_vanishes_after_it_was_collected_gives_no_clip_of_another_content():
    paths = [add_video(f"{name}.mp4", seed) for seed, name in enumerate("ab")]
    run(make_params(), stages=(collect,))
    paths[0].write_bytes(paths[1].read_bytes())
    run(make_params(), stages=(clips,))
    rows = read_clips("mixed").set_index("video")
    assert rows["status"].to_dict() == {"a.mp4": "dropped", "b.mp4": "kept"}
    assert rows.loc["a.mp4", "reason"] == "it changed after collect had read it; run collect again"
    paths[0].unlink()
    with pytest.raises(ContractError, match=r"a.mp4: no such file, .* run python -m stages.collect --split mixed"):
        run(make_params(), stages=(clips,))
    run(make_params(), stages=(collect, clips))
    assert list(read_clips("mixed")["status"]) == ["kept"]


def test_removing_a_video_removes_what_came_of_it():
    for seed in range(2):
        add_video(f"{seed}.mp4", seed)
    run(make_params())
    one = contents()
    extra = add_video("2.mp4", seed=2)
    run(make_params())
    assert len(contents()) > len(one)
    extra.unlink()
    run(make_params())
    assert contents() == one


def test_a_clip_that_was_lost_is_made_again():
    add_video("a.mp4", 1)
    run(make_params())
    before = contents()
    (clip,) = curated_clips("mixed")
    shard_of(clip.video).unlink()
    run(make_params())
    assert contents() == before


def test_another_parameter_makes_new_clips():
    add_video("a.mp4", 1)
    run(make_params())
    (old,) = curated_clips("mixed")
    run(make_params(clips__seed=1))
    (new,) = curated_clips("mixed")
    assert (
        new.clip_id != old.clip_id
        and not clip_videos("mixed").has(old.clip_id)
        and not tracks_folder("mixed").has(old.clip_id)
    )
    tracked = shard_of(new.tracks).stat().st_mtime_ns
    run(make_params(clips__seed=1, sparse_flows__seed=1))
    assert shard_of(new.tracks).stat().st_mtime_ns == tracked


def test_the_least_motion_is_dropped_and_comes_back_without_being_made_again():
    for step in range(1, 5):
        write_video(Path(f"inputs/mixed/{step}.mp4"), moving_texture(24, 96, 64, step=step, seed=step))
    unchecked = dict.fromkeys(("max_black", "max_frozen", "min_brightness", "min_sharpness", "max_text"))
    quarter = make_params(
        clips__drop_share={"mixed": 0.25, "camera": 0.0}, clips__interval=[1, 1], clips__quality=unchecked
    )
    run(quarter)
    rows = read_clips("mixed").set_index("video")
    assert rows["status"].to_dict() == {"1.mp4": "dropped", **{f"{i}.mp4": "kept" for i in (2, 3, 4)}}
    assert "little motion" in rows.loc["1.mp4", "reason"] and rows["motion_score"].is_monotonic_increasing
    waiting = shard_of(clip_videos("mixed").path(rows.loc["1.mp4", "clip_id"]))
    made = waiting.stat().st_mtime_ns
    write_video(Path("inputs/mixed/still.mp4"), moving_texture(24, 96, 64, step=0))
    run(quarter)
    rows = read_clips("mixed").set_index("video")
    assert rows["status"].to_dict() == {"still.mp4": "dropped", **{f"{i}.mp4": "kept" for i in (1, 2, 3, 4)}}
    assert waiting.stat().st_mtime_ns == made and len(curated_clips("mixed")) == 4


def test_adding_videos_moves_no_other_between_the_subsets():
    for seed in range(8):
        add_video(f"{seed}.mp4", seed, frames=16)
    params = make_params(clips__held_out=0.4, clips__validation=0.3)
    run(params, stages=(collect, clips))
    before = read_clips("mixed").set_index("video")["subset"]
    assert set(before) == set(SUBSETS)
    for seed in range(8, 12):
        add_video(f"{seed}.mp4", seed, frames=16)
    run(params, stages=(collect, clips))
    after = read_clips("mixed").set_index("video")["subset"]
    assert after[before.index].equals(before)


def test_a_scene_inside_another_video_is_on_its_side():
    parts = [moving_texture(24, 160, 120, seed=seed) for seed in (1, 2, 3)]
    for name, part in zip("abc", parts, strict=True):
        write_video(Path(f"inputs/mixed/{name}.mp4"), part)
    write_video(Path("inputs/mixed/film.mp4"), np.concatenate([parts[0], parts[1][:20]])[:, ::2, ::2])
    run(make_params(), stages=[collect])
    contents = read_manifest("mixed").set_index("video")["content"]
    lowest, _, highest = sorted(int(contents[name][:13], 16) / 16**13 for name in ("a.mp4", "b.mp4", "film.mp4"))
    held_out = (lowest + highest) / 2  # so that the three would be on both sides
    run(make_params(clips__held_out=held_out, clips__validation=0.0), stages=[clips])
    sides = read_clips("mixed").set_index("video")["subset"]
    assert sides["a.mp4"] == sides["b.mp4"] == sides["film.mp4"]
    assert sides["c.mp4"] == subset_of(contents["c.mp4"], held_out, 0.0)
    pairs = read_shared("mixed")
    assert {frozenset(pair) for pair in pairs[["video", "other"]].to_numpy()} == {
        frozenset(("a.mp4", "film.mp4")),
        frozenset(("b.mp4", "film.mp4")),
    }
    assert set(pairs["subset"]) == {sides["film.mp4"]} and (pairs["share"] >= 0.5).all()


def test_the_same_content_twice_is_one_clip():
    shutil.copy(add_video("a.mp4", 1), "inputs/mixed/b.mp4")
    run(make_params())
    rows = read_clips("mixed")
    assert rows["status"].tolist() == ["kept", "dropped"] and rows.loc[1, "reason"] == "same content as a.mp4"
    assert len(curated_clips("mixed")) == 1


def test_broken_files_become_rows_with_reasons():
    folder = Path("inputs/mixed/nested/deep")
    folder.mkdir(parents=True)
    reasons, good = write_broken(folder), add_video("good.mp4", 1)
    (good.parent / "captions.csv").write_text("video,caption\ngood.mp4,blocks\nmissing.mp4,gone\n")
    run(make_params())
    rows = read_clips("mixed").set_index("video")
    assert len(rows) == len(reasons) + 2
    assert rows.loc["good.mp4", "status"] == "kept" and rows.loc["missing.mp4", "reason"] == "file not found"
    for name, reason in reasons.items():
        row = rows.loc[f"nested/deep/{name}"]
        assert row["status"] == "dropped" and reason in row["reason"], name
    assert [clip.caption for clip in curated_clips("mixed")] == ["blocks"]


def test_unusual_videos_are_kept():
    Path("inputs/mixed").mkdir(parents=True)
    names = write_unusual(Path("inputs/mixed"))
    run(make_params(clips__interval=[1, 1], clips__near_duplicates=None))
    rows = read_clips("mixed").set_index("video")
    assert rows["status"].to_dict() == dict.fromkeys(names, "kept")
    assert (rows.loc["turned.mp4", ["width", "height"]] == [120, 160]).all()
    assert (rows.loc["odd.avi", ["width", "height"]] == [161, 121]).all()


def test_only_the_longest_scene_is_used():
    scenes = [moving_texture(length, 160, 120, seed=length) for length in (20, 40, 25)]
    write_video(Path("inputs/mixed/a.mp4"), np.concatenate(scenes))
    run(make_params(), stages=(collect, clips))
    row = read_clips("mixed").iloc[0]
    assert (row["scene_start"], row["scene_end"]) == (20, 60)
    assert row["first_frame"] >= 20 and row["first_frame"] + 15 * row["interval"] < 60


def test_every_scene_is_a_clip_of_its_own_on_the_side_of_its_video():
    for name in ("a", "b"):
        scenes = [moving_texture(length, 160, 120, seed=ord(name) + length) for length in (20, 8, 30)]
        write_video(Path(f"inputs/mixed/{name}.mp4"), np.concatenate(scenes))
    run(make_params(clips__scenes="all"))
    rows = read_clips("mixed")
    assert list(zip(rows["video"], rows["scene_start"], rows["scene_end"], strict=True)) == [
        (f"{name}.mp4", start, end) for name in "ab" for start, end in ((0, 20), (28, 58))
    ]
    assert rows["clip_id"].is_unique and (rows.groupby("video")["subset"].nunique() == 1).all()
    assert [clip.clip_id for clip in curated_clips("mixed")] == sorted(rows["clip_id"])
    before = times()
    run(make_params(clips__scenes="all"))
    assert times() == before


def test_a_limit_on_tracks_drops_clips_and_tracks_none_again():
    add_video("a.mp4", 1)
    add_video("b.mp4", 2)
    run(make_params())
    made = times()
    facts = read_track_facts("mixed")
    assert len(curated_clips("mixed")) == 2 and (facts["seen_last"] > 0).all() and facts["round_trip"].notna().all()
    limit = float(facts["seen_last"].max()) + 0.001
    limits = {"min_seen_middle": None, "min_seen_last": limit, "max_round_trip": None}
    run(make_params(tracks__limits=limits | {"max_own_motion": {"mixed": None, "camera": None}}), stages=(tracks,))
    assert curated_clips("mixed") == [] and times() == made
    assert read_track_facts("mixed")["reason"].str.startswith("lost tracks").all()
    tracks_file("mixed").unlink()
    run(make_params(), stages=(tracks,))
    assert read_track_facts("mixed").equals(facts) and len(curated_clips("mixed")) == 2


def test_real_footage_is_curated():
    Path("inputs/mixed").mkdir(parents=True)
    for path in sorted(real_videos(), key=lambda path: path.stat().st_size)[:3]:
        shutil.copy(path, "inputs/mixed")
    run(make_params(clips__near_duplicates=None))
    assert len(curated_clips("mixed")) == 3
    assert all(np.mean(read_tracks(clip.tracks).visibility) > 0.3 for clip in curated_clips("mixed"))


def test_an_empty_source_gives_empty_tables():
    Path("inputs/mixed").mkdir(parents=True)
    run(make_params(backend="processes"))
    assert read_clips("mixed").empty and curated_clips("mixed") == []


def test_captions_are_kept_or_made_once(monkeypatch):
    add_video("with.mp4", 1)
    add_video("without.mp4", 2)
    Path("inputs/mixed/captions.csv").write_text("video,caption\nwith.mp4,given\n")
    calls = []

    def describe(images):
        calls.append(len(images))
        return ["blocks"] * len(images)

    monkeypatch.setattr(captions, "load_estimator", lambda kind, name, model: describe)
    for name in ("blip2", "moved"):
        Path(name).mkdir()
        Path(name, "model.safetensors").write_bytes(b"x")
        params = make_params(captions__estimator="blip2", captions__model=name)
        run(params)
        origins = read_table(captions_file("mixed"), CAPTIONS).set_index("caption")["origin"].to_dict()
        assert origins == {"given": "source", "blocks": name} and calls == [5]
    Path("moved/model.safetensors").write_bytes(b"other weights")
    run(params, stages=(captions,))
    assert calls == [5, 5]
    run(make_params())
    assert set(read_table(captions_file("mixed"), CAPTIONS)["origin"]) == {"source", "none"}


def test_a_killed_run_resumes():
    for seed in range(6):
        write_video(Path(f"inputs/mixed/{seed}.mp4"), moving_texture(60, 480, 320, seed=seed))
    values = make_params(backend="processes").model_dump(mode="json", by_alias=True)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    collect.run("mixed", make_params())
    command = [sys.executable, "-m", "stages.clips", "--split", "mixed"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(command, env=environment, start_new_session=True)
    made = clips_folder("mixed")
    deadline = time.time() + 60
    while not list(made.glob("measured/*.json")) and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    first = list(made.glob("measured/*.json"))
    finished = clip_videos("mixed").path(first[0].stem)
    finished.write_bytes(b"as it was")
    assert 0 < len(first) < 6 and not (made / "clips.parquet").exists()
    subprocess.run(command, env=environment, check=True)
    assert (read_clips("mixed")["status"] == "kept").all() and len(clip_videos("mixed").ids()) == 6
    assert read_item(finished) == b"as it was"
    resumed = contents("data/clips")
    shutil.rmtree(made)
    clips.run("mixed", make_params())
    whole = contents("data/clips")
    assert whole.keys() == resumed.keys()
    assert {name for name in whole if whole[name] != resumed[name]} == {str(shard_of(finished))}


def test_a_wrong_source_ends_in_one_line():
    values = make_params().model_dump(mode="json", by_alias=True)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "stages.collect", "--split", "mixed"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "collect@mixed: inputs/mixed: no such folder; create it or change collect.folder.mixed\n"


def test_captions_of_one_split_leave_the_other_splits_unfinished_file_alone():
    add_video("a.mp4", 1)
    run(make_params(), stages=(collect, clips))
    own, other = (captions_file(split).parent / f".tmp-{split}.parquet-0" for split in ("mixed", "camera"))
    own.parent.mkdir(parents=True)
    for path in (own, other):
        path.touch()
    run(make_params(), stages=(captions,))
    assert other.exists() and not own.exists()

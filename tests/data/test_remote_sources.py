"""Videos in S3 are curated like local ones, and fetched once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages import clips, collect
from stages.data.paths import fetched_folder, videos_folder
from stages.data.tables import MANIFEST, read_clips, read_manifest, read_table
from tests.data.test_curation_stages import contents, make_params, run, times, workspace  # noqa: F401
from tests.footage import ROOT, moving_texture, write_broken, write_video

SOURCE = {"mixed": "s3://videos/in", "camera": "inputs/camera"}
COLLECT = [sys.executable, "-m", "stages.collect", "--split", "mixed"]


def params(**changes):
    return make_params(collect__folder=SOURCE, **changes)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "local"
    for seed in range(3):
        write_video(folder / f"sub/{seed}.mp4", moving_texture(24, 160, 120, seed=seed))
    (folder / "sub/0.txt").write_text("blocks")
    return folder


@pytest.fixture
def uploaded(bucket, folder):
    bucket.put(str(folder) + "/", "videos/in/", recursive=True)
    return bucket


def start(command=COLLECT):
    values = params(compute__backend="processes").model_dump(mode="json", by_alias=True)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)


def test_the_same_videos_give_the_same_clips_wherever_they_lie(uploaded, folder):
    run(params())
    remote = contents("data/clips")
    manifest = read_manifest("mixed")
    assert (read_clips("mixed")["status"] == "kept").all() and manifest["caption"].tolist() == ["blocks", "", ""]
    run(make_params(collect__folder=SOURCE | {"mixed": str(folder)}), stages=(collect, clips))
    assert contents("data/clips") == remote
    assert read_manifest("mixed").drop(columns="file").equals(manifest.drop(columns="file"))
    assert not [path for path in fetched_folder("mixed").rglob("*") if path.is_file()]


def test_a_nothing_changed_run_downloads_nothing_and_a_new_video_costs_one(uploaded, folder, downloads):
    run(params(), stages=(collect,))
    assert downloads() == ["in/sub/0.mp4", "in/sub/0.txt", "in/sub/1.mp4", "in/sub/2.mp4"]
    before, stamps = contents(), times()
    run(params(), stages=(collect,))
    assert downloads() == [] and contents() == before and times() == stamps
    new = write_video(folder / "new.mp4", moving_texture(24, 160, 120, seed=9))
    uploaded.put(str(new), "videos/in/new.mp4")
    run(params(), stages=(collect,))
    assert downloads() == ["in/new.mp4"]
    uploaded.rm("videos/in/new.mp4")
    run(params(), stages=(collect,))
    assert contents() == before


def test_worker_processes_fetch_too(uploaded, downloads):
    run(params(), stages=(collect,))
    before = contents()
    shutil.rmtree("data")
    shutil.rmtree(fetched_folder("mixed"))
    downloads()
    assert start().wait() == 0
    assert contents() == before and len(downloads()) == 4


def test_a_killed_download_resumes(bucket, downloads):
    for index in range(40):
        bucket.pipe(f"videos/in/{index:02}.mp4", bytes([index]) * 2_000_000)
    killed = start()
    records = fetched_folder("mixed") / "fetched"
    deadline = time.time() + 60
    while len(list(records.glob("[!.]*"))) < 3 and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = len(list(records.glob("[!.]*")))
    assert 3 <= done < 40 and not (videos_folder("mixed") / "manifest.parquet").exists()
    downloads()
    assert start().wait() == 0
    assert len(downloads()) <= 40 - done
    assert read_manifest("mixed")["file"].notna().all()
    assert not list(fetched_folder("mixed").rglob(".tmp-*"))


def test_what_cannot_be_used_is_a_row(uploaded, tmp_path):
    reasons = write_broken(Path("broken"))
    uploaded.put("broken/", "videos/in/broken/", recursive=True)
    uploaded.pipe("videos/in/captions.csv", b"video,caption\ngone.mp4,a cat\n")
    uploaded.call_s3("put_object", Bucket="videos", Key="in/archived.mp4", Body=b"x", StorageClass="GLACIER")
    run(params(), stages=(collect, clips))
    rows = read_clips("mixed").set_index("video")
    for name, reason in reasons.items():
        assert reason in rows.loc[f"broken/{name}", "reason"], name
    assert rows.loc["gone.mp4", "reason"] == "file not found"
    assert rows.loc["archived.mp4", "reason"].startswith("cannot be read: ")
    assert len(rows) == len(reasons) + 5


def test_an_object_that_vanishes_after_it_was_listed_is_a_row(uploaded, monkeypatch):
    listed = collect.list_folder

    def vanish(*arguments):
        videos = listed(*arguments)
        uploaded.rm("videos/in/sub/1.mp4")
        return videos

    monkeypatch.setattr(collect, "list_folder", vanish)
    run(params(), stages=(collect,))
    rows = read_table(videos_folder("mixed") / "manifest.parquet", MANIFEST).set_index("video")
    assert rows["reason"].to_dict() == {"sub/0.mp4": "", "sub/1.mp4": "file not found", "sub/2.mp4": ""}


def test_a_wrong_url_ends_in_one_line(bucket):
    values = params().model_dump(mode="json", by_alias=True)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(COLLECT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "collect@mixed: s3://videos/in: no such folder; change collect.folder.mixed\n"

"""`compute.backend: dask` on a real scheduler with two real workers, one of which offers a GPU."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster, get_worker

from models.video import decode
from stages import clips, collect
from stages.clips import make_clips
from stages.data.items import content_hash, temporary_file
from stages.data.paths import clip_videos, clips_folder, measures_folder
from stages.data.shards import shard_of
from stages.data.tables import read_clips
from stages.params import ComputeParams, ParamsError, load_params
from stages.run import compute
from stages.run.compute import map_items
from tests.data.test_curation_stages import contents, make_params
from tests.footage import ROOT, moving_texture, write_video

VIDEOS = 8


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler that gives an item up at the first death of its worker, so that few need to die."""
    file = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    process = start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file), cwd=file.parent)
    while not (file.exists() and file.read_text().endswith("}")):
        assert process.poll() is None, "the scheduler ended"
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"]
    stop(process)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The folder that the workers share with the stage, with the videos in it."""
    folder = tmp_path_factory.mktemp("workspace")
    for index in range(VIDEOS):
        write_video(folder / f"inputs/mixed/{index}.mp4", moving_texture(24, 160, 120, seed=index))
    return folder


@pytest.fixture(scope="module")
def workers(scheduler, workspace):
    """The compute section for two workers, `plain` and `tagged`; their nannies start them anew when they die."""
    common = (scheduler, "--nthreads", "1", "--no-dashboard", "--local-directory", str(workspace / "dask"))
    processes = [
        start("worker", *common, "--name", "plain", cwd=workspace),
        start("worker", *common, "--name", "tagged", "--resources", "GPU=1", cwd=workspace),
    ]
    with Client(scheduler) as client:
        client.wait_for_workers(2, timeout=120)
    yield on_dask(scheduler)
    for process in processes:
        stop(process)


def on_dask(address):
    return ComputeParams(backend="dask", workers=None, address=address, training_processes=None, processes_per_gpu=1)


def start(program, *arguments, cwd):
    settings = {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dask", program, "--host", "127.0.0.1", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=os.environ | settings)


def stop(process):
    process.terminate()
    process.wait(60)


def where(item):
    return item, get_worker().name


def sleep(item):
    time.sleep(0.05)


def fail_at_three(item):
    if item == 3:
        raise ValueError("three")
    return item


def die_at_three(item):
    return kill_worker() if item == 3 else where(item)


def hang_at_three(item):
    if item == 3:
        compute.HUNG = 0.2
        with decode.waiting():
            time.sleep(600)
    return where(item)


def crashed(item):
    return item, "crashed"


def kill_worker():
    os.kill(os.getpid(), signal.SIGKILL)


def clip_dying_once(item, content, mark):
    """`make_clips`, whose worker is killed at one video, the first time, while it writes the clip."""
    if item.content == content and not mark.exists():
        mark.touch()
        with temporary_file(item.folders.videos.folder) as half:
            half.write_bytes(b"half")
            kill_worker()
    return make_clips(item)


def clip_dying_always(item, content):
    """`make_clips`, whose worker dies of one video each time."""
    if item.content == content:
        kill_worker()
    return make_clips(item)


@pytest.fixture
def shared(workspace, monkeypatch):
    """The workers' folder, as it is before the stage `clips`."""
    monkeypatch.chdir(workspace)
    shutil.rmtree("data", ignore_errors=True)
    collect.run("mixed", make_params())
    return workspace


@pytest.fixture(scope="module")
def serial(workspace, tmp_path_factory):
    """All files of a serial run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("serial"))
        shutil.copytree(workspace / "inputs", "inputs")
        collect.run("mixed", make_params())
        clips.run("mixed", make_params())
        assert list(read_clips("mixed")["status"]) == ["kept"] * VIDEOS
        return contents()


def clips_on_dask(monkeypatch, workers, function):
    """Run the stage, whose workers get `function` for `make_clips`; all files, without the halves that DVC ignores."""
    params = make_params()
    monkeypatch.setattr(clips, "map_items", lambda _, *rest: map_items(function, *rest))
    clips.run("mixed", params.model_copy(update={"compute": workers}))
    return {name: data for name, data in contents().items() if not Path(name).name.startswith(".tmp-")}


def test_no_worker_or_none_with_a_gpu_is_an_error_that_says_how_to_start_one(scheduler, monkeypatch):
    monkeypatch.setattr("stages.run.compute.SECONDS_FOR_A_WORKER", 0)
    with pytest.raises(ParamsError, match=f"no worker; start one .*: dask worker {scheduler} --nthreads 1$"):
        list(map_items(where, range(3), on_dask(scheduler), "t", crashed))
    with pytest.raises(ParamsError, match='no worker that offers a GPU; .* --resources "GPU=1"$'):
        list(map_items(where, range(3), on_dask(scheduler), "t", crashed, one_per_accelerator=True))


def test_items_for_accelerators_go_to_the_worker_that_offers_one(shared, workers):
    items = range(100)
    assert dict(map_items(where, items, workers, "t", crashed, True)) == dict.fromkeys(items, "tagged")
    anywhere = dict(map_items(where, items, workers, "t", crashed))
    assert anywhere.keys() == set(items) and set(anywhere.values()) == {"plain", "tagged"}


def test_an_error_is_raised(shared, workers):
    with pytest.raises(ValueError, match="three"):
        list(map_items(fail_at_three, range(12), workers, "t", crashed))


def test_a_worker_killed_in_the_middle_changes_no_byte(serial, shared, workers, monkeypatch):
    mark = shared / "killed"
    dying = partial(clip_dying_once, content=content_hash("inputs/mixed/4.mp4"), mark=mark)
    assert clips_on_dask(monkeypatch, workers, dying) == serial
    assert mark.exists()


def test_a_video_that_kills_every_worker_costs_only_itself(serial, shared, workers, monkeypatch):
    dying = partial(clip_dying_always, content=content_hash("inputs/mixed/4.mp4"))
    made = clips_on_dask(monkeypatch, workers, dying)
    rows = read_clips("mixed").set_index("video")
    assert "crashed" in rows.loc["4.mp4", "reason"] and (rows["status"] == "dropped").sum() == 1
    clip_id = rows.loc["4.mp4", "clip_id"]
    own = {str(shard_of(folder("mixed").path(clip_id))) for folder in (clip_videos, measures_folder)}
    own.add(str(clips_folder("mixed") / "clips.parquet"))
    assert {name: data for name, data in made.items() if name not in own} == {
        name: data for name, data in serial.items() if name not in own
    }
    monkeypatch.setattr(clips, "map_items", map_items)
    clips.run("mixed", make_params())  # it is tried again: perhaps memory was short
    assert contents() == serial


@pytest.mark.parametrize("function", [die_at_three, hang_at_three])
def test_neighbours_of_an_item_that_kills_or_hangs_its_gpu_worker_are_done(shared, workers, function):
    results = dict(map_items(function, range(6), workers, "t", crashed, one_per_accelerator=True))
    assert results == {item: "crashed" if item == 3 else "tagged" for item in range(6)}


def test_a_worker_in_another_folder_is_named(workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=f"works in another folder; start it in {tmp_path}, "):
        list(map_items(where, range(3), workers, "t", crashed))


def test_a_scheduler_that_goes_away_is_named():
    with LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        results = map_items(sleep, range(200), on_dask(cluster.scheduler_address), "t", crashed)
        next(results)
        cluster.close()
        with pytest.raises(ParamsError, match="went away; what was done is kept"):
            list(results)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_named_in_one_line(address):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ParamsError, match=rf"compute\.address: .*{address}") as caught,
    ):
        list(map_items(where, range(3), on_dask(address), "t", crashed))
    assert "\n" not in str(caught.value)


def test_dask_without_an_address_is_refused(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("backend: processes", "backend: dask"))
    with pytest.raises(ParamsError, match="compute: .*backend dask needs address"):
        load_params(tmp_path / "params.yaml")

"""A Dask scheduler and two workers as programs of their own, one with a GPU as it says: killed, misled, lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from stages import clips, collect, compute
from stages.compute import ComputeError, map_items
from stages.contracts import clips_folder, read_clips
from stages.params import Compute, Params
from tests.footage import ROOT, moving_texture, write_video
from tests.unit.test_compute import crashed, die_at_three, fail_at_three, hang_at_three, square, wait_for

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
pytestmark = pytest.mark.e2e


def on_dask(address):
    return Compute(backend="dask", workers=None, address=address, training_processes=None)


def start(*command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    return subprocess.Popen([sys.executable, "-m", "dask", *command], cwd=folder, env=environment)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Its folder and its address."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    options = ("--scheduler-file", str(file), "--no-dashboard")
    programs = [start("scheduler", "--host", "127.0.0.1", "--port", "0", *options, folder=folder)]
    try:
        wait_for(file.exists)
        for name, resources in (("plain", ()), ("accelerated", ("--resources", "GPU=1"))):
            programs.append(start("worker", "--name", name, "--nthreads", "1", *options, *resources, folder=folder))
        address = json.loads(file.read_text())["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield folder, address
    finally:
        for program in reversed(programs):
            program.terminate()
            program.wait()


@pytest.fixture
def address(cluster, monkeypatch):
    monkeypatch.chdir(cluster[0])
    return cluster[1]


@pytest.fixture
def lonely(tmp_path, monkeypatch):
    """A scheduler in this process, with one worker that has no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compute, "WORKER_WAIT", 0.5)
    with distributed.LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        yield cluster


def whose(x):
    time.sleep(0.05)
    return distributed.get_worker().name


def test_results_are_those_of_every_mode(address):
    assert sorted(map_items(square, range(200), on_dask(address), "t", crashed)) == [(x, x * x) for x in range(200)]
    with pytest.raises(ValueError, match="three"):
        list(map_items(fail_at_three, range(12), on_dask(address), "t", crashed))


@pytest.mark.parametrize("function", [die_at_three, hang_at_three])
def test_an_item_that_kills_or_hangs_its_worker_costs_only_itself(address, function):
    """Even where all the others wait at the same worker."""
    results = dict(map_items(function, range(8), on_dask(address), "t", crashed, one_per_accelerator=True))
    assert results == {x: "crashed" if x == 3 else "done" for x in range(8)}


def test_items_for_an_accelerator_go_where_one_is(address):
    names = set(map_items(whose, range(12), on_dask(address), "t", crashed))
    assert names == {"plain", "accelerated"}
    names = set(map_items(whose, range(12), on_dask(address), "t", crashed, one_per_accelerator=True))
    assert names == {"accelerated"}


def test_a_stage_gives_the_same_bytes_though_a_worker_is_killed(address):
    for seed in range(6):
        write_video(Path(f"inputs/mixed/{seed}.mp4"), moving_texture(60, 480, 320, seed=seed))
    values = yaml.safe_load((ROOT / "profiles" / "pocket.yaml").read_text())
    values["collect"]["source"], values["compute"]["backend"] = "folder", "serial"
    serial = Params.model_validate(values)
    collect.run("mixed", serial)
    clips.run("mixed", serial)
    wanted = contents(clips_folder("mixed"))
    for path in clips_folder("mixed").rglob("*"):
        if path.is_file():
            path.unlink()

    before = worker_processes(address)
    killer = threading.Thread(target=kill_when, args=(clips_folder("mixed") / "measured", min(before)))
    killer.start()
    clips.run("mixed", serial.model_copy(update={"compute": on_dask(address)}))
    killer.join()
    assert min(before) not in worker_processes(address)
    assert contents(clips_folder("mixed")) == wanted and (read_clips("mixed")["reason"] == "").sum() > 3


def worker_processes(address):
    with distributed.Client(address, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


def kill_when(folder, pid):
    """Kill a process once something was made in a folder."""
    wait_for(lambda: any(folder.glob("*.json")))
    os.kill(pid, signal.SIGKILL)


def contents(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_without_a_fit_worker_nothing_waits(lonely):
    assert list(map_items(square, [2], on_dask(lonely.scheduler_address), "t", crashed)) == [(2, 4)]
    with pytest.raises(ComputeError, match=r"no worker with the resource GPU at .* --resources GPU=1"):
        list(map_items(square, [2], on_dask(lonely.scheduler_address), "t", crashed, one_per_accelerator=True))


def test_a_scheduler_that_goes_away_is_named(lonely):
    results = map_items(whose, range(200), on_dask(lonely.scheduler_address), "t", crashed)
    next(results)
    lonely.close()
    with pytest.raises(ComputeError, match="was lost; run again"):
        list(results)


def test_workers_in_another_folder_are_named(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ComputeError, match=f"works in another folder; start it in {tmp_path}"):
        list(map_items(square, [2], on_dask(address), "t", crashed))


@pytest.mark.parametrize("address", ["scheduler", "http://127.0.0.1:9"])
def test_a_wrong_address_is_named(address):
    with pytest.raises(ComputeError, match=rf"compute.address: no Dask scheduler at {address} \("):
        list(map_items(square, [2], on_dask(address), "t", crashed))


def test_a_scheduler_that_cannot_be_reached_ends_in_one_line(tmp_path):
    values = yaml.safe_load((ROOT / "profiles" / "pocket.yaml").read_text())
    values["compute"] |= {"backend": "dask", "address": "tcp://127.0.0.1:9"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    command = [sys.executable, "-m", "stages.collect", "--split", "mixed"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("collect@mixed: compute.address: no Dask scheduler at tcp://127.0.0.1:9 (")

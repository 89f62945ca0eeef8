import os
import signal
import subprocess
import sys
import time

import pytest

from models.video import decode
from stages.params import ComputeParams
from stages.run import compute
from stages.run.compute import Done, map_items
from tests.footage import ROOT

PROCESSES = ComputeParams(backend="processes", workers=2, address=None, training_processes=None)
NO_NUMBER = ComputeParams(backend="processes", workers=None, address=None, training_processes=None)
SERIAL = ComputeParams(backend="serial", workers=None, address=None, training_processes=None)


def square(x):
    return x, x * x


def fail_at_three(x):
    if x == 3:
        raise ValueError("three")
    return x


def die_at_three(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x, "done"


def die_at_some(x):
    if x % 33 == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return x, "done"


def hang_at_three(x):
    if x == 3:
        compute.HUNG = 0.2
        with decode.waiting():
            time.sleep(600)
    return x, "done"


def crashed(x):
    return x, "crashed"


def tell_and_sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_every_mode_gives_the_same():
    wanted = [(x, x * x) for x in range(20)]
    assert list(map_items(square, range(20), SERIAL, "t", crashed)) == wanted
    assert sorted(map_items(square, range(20), PROCESSES, "t", crashed)) == wanted


def test_no_item_no_work():
    assert list(map_items(square, [], PROCESSES, "t", crashed)) == []


def test_an_item_that_kills_its_worker_costs_only_itself():
    results = dict(map_items(die_at_three, range(12), PROCESSES, "t", crashed))
    assert results == {x: "crashed" if x == 3 else "done" for x in range(12)}


def test_no_item_is_lost_when_workers_die_while_results_are_waiting():
    results = []
    for result in map_items(die_at_some, range(400), PROCESSES, "t", crashed):
        results.append(result)
        time.sleep(0.002)  # the pool breaks between two results, not only while the next one is waited for
    assert sorted(results) == [(x, "crashed" if x % 33 == 10 else "done") for x in range(400)]


@pytest.mark.parametrize("mode", [SERIAL, PROCESSES])
def test_an_error_is_raised(mode):
    with pytest.raises(ValueError, match="three"):
        list(map_items(fail_at_three, range(12), mode, "t", crashed))


def test_workers_do_not_outlive_a_killed_run(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from tests.unit.test_compute import *\n"
        "if __name__ == '__main__':\n"
        "    paths = [pathlib.Path(sys.argv[1]) / str(i) for i in range(2)]\n"
        "    list(map_items(tell_and_sleep, paths, PROCESSES, 't', crashed))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    pids = wait_for(lambda: sum(1 for path in tmp_path.glob("*") if path.read_text()) == 2 and read_pids(tmp_path))
    run.kill()
    run.wait()
    assert wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_decoder_that_hangs_costs_only_its_item():
    results = dict(map_items(hang_at_three, range(6), PROCESSES, "t", crashed))
    assert results == {x: "crashed" if x == 3 else "done" for x in range(6)}


@pytest.mark.parametrize(
    ("accelerators", "sharing", "workers"), [(0, 8, 1), (1, 1, 1), (1, 8, 8), (4, 1, 4), (4, 8, 16), (32, 8, 32)]
)
def test_processes_share_a_gpu_while_there_are_cores(monkeypatch, accelerators, sharing, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr("torch.cuda.device_count", lambda: accelerators)
    asked = []
    monkeypatch.setattr(
        compute, "_pool", lambda function, neural, items, count: asked.append(count) or map(Done, items)
    )
    assert len(list(map_items(square, range(99), NO_NUMBER, "t", crashed, True, sharing))) == 99
    assert asked == [workers]


def read_pids(folder):
    return [int(path.read_text()) for path in folder.glob("*")]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=120):
    end = time.time() + seconds
    while time.time() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not come true in time")

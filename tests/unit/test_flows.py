"""The flows over a stand-in pipeline: what runs, what is tried again, what is stopped."""

import os
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows import dvc, reports, scheduled
from flows.dvc import DvcBusy, DvcError, end_group, needs_gpu, repro
from stages.params import Params, load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def prefect():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A DVC repository with two stages: one works, one fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  collect: {cmd: echo hello > out.txt && echo collected, outs: [out.txt]}\n"
        "  clips: {cmd: echo the reason && exit 3}\n"
    )
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True, env=environment)
    return tmp_path


@pytest.fixture
def recorded(monkeypatch, tmp_path) -> list:
    """The stages that the flows bring up to date, in order, without doing it."""
    calls: list = []

    def record(stage, params, single_item=False, force=False):
        calls.append((stage, single_item))

    monkeypatch.setattr(scheduled, "repro", record)
    for name in ("curation", "training", "evaluation"):
        monkeypatch.setattr(reports, name, lambda: None)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_stage_runs_and_one_that_fails_says_why(workspace, params):
    @flow
    def both():
        repro("collect", params)
        assert (workspace / "out.txt").read_text() == "hello\n"
        repro("clips", params)

    with pytest.raises(DvcError, match=r"(?s)exit code.*the reason"):
        both()


@pytest.mark.parametrize(("error", "tries"), [(DvcBusy, 3), (DvcError, 1)])
def test_only_a_busy_repository_is_tried_again(params, monkeypatch, error, tries):
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise error("no")

    monkeypatch.setattr(dvc, "run_dvc", fail)

    @flow
    def once():
        repro.with_options(retries=2, retry_delay_seconds=0)("collect", params)

    with pytest.raises(error):
        once()
    assert calls == [("repro", "collect")] * tries


def test_a_locked_repository_is_recognised(workspace, params):
    @flow
    def locked():
        dvc.run_dvc("repro", "collect")

    (workspace / ".dvc/tmp").mkdir(exist_ok=True)
    holder = (
        "import sys, time, zc.lockfile; l = zc.lockfile.LockFile('.dvc/tmp/lock'); print(1, flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline()
            with pytest.raises(DvcBusy):
                locked()
        finally:
            process.kill()


def test_gpu_stages_need_a_slot(params, monkeypatch):
    held = []
    monkeypatch.setattr(dvc, "run_dvc", lambda *arguments: held.append(slots_in_use()))

    @flow
    def train():
        repro.with_options(retries=0)("camera_lora", params)

    with pytest.raises(Exception, match="gpu"):
        train()
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("gpu", 1)
    train()
    assert held == [1]


def slots_in_use() -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name("gpu").active_slots


def test_which_stages_need_a_gpu(params):
    neural = params.model_copy(update={"clips": params.clips.model_copy(update={"flow": "raft"})})

    assert needs_gpu("motion_controlnet", params)
    assert needs_gpu("clips", neural)
    paper = load_params(ROOT / "profiles/paper.yaml")
    assert needs_gpu("tracks", paper) and needs_gpu("track_quality", paper)
    assert not needs_gpu("track_quality", params)
    assert not needs_gpu("clips", params)
    assert needs_gpu("register", params)
    assert not needs_gpu("collect", params)


def test_leaving_early_ends_dvc_and_all_that_it_started(tmp_path):
    child = "import subprocess, sys; print(subprocess.Popen(['sleep', '99']).pid, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    grandchild = int(process.stdout.readline())

    end_group(process)

    assert process.poll() is not None
    for _ in range(50):
        if not alive(grandchild):
            break
        time.sleep(0.1)
    assert not alive(grandchild)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_evaluation_trains_nothing(recorded):
    scheduled.evaluate()

    assert recorded == [("evaluate", True), ("register", True)]


def test_new_clips_do_not_slip_in_between_the_stages_of_another_flow(recorded, tmp_path):
    (tmp_path / ".locks").mkdir()
    other = FileLock(scheduled.PIPELINE.lock_file)
    with other:
        assert scheduled.recurate(return_state=True).name == "Skipped"
        assert recorded == []

    assert scheduled.recurate(return_state=True).name == "Completed"
    assert [stage for stage, _ in recorded] == list(scheduled.CURATION)


def test_evaluation_waits_for_another_flow(recorded, tmp_path):
    (tmp_path / ".locks").mkdir()
    held = threading.Event()

    def another_flow():
        with FileLock(scheduled.PIPELINE.lock_file):
            held.set()
            time.sleep(1)
            recorded.append("the other ends")

    threading.Thread(target=another_flow).start()
    held.wait()

    scheduled.evaluate()

    assert recorded == ["the other ends", ("evaluate", True), ("register", True)]


def test_everything_is_every_stage_in_order(recorded):
    scheduled.everything()

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [stage for stage, _ in recorded] == [name for name in stages if not stages[name].get("frozen")]


@pytest.mark.parametrize("commit", [True, False])
def test_the_lock_file_is_committed_only_if_the_parameters_say_so(recorded, monkeypatch, tmp_path, commit):
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout

    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "someone")
    git("init", "--quiet")
    git("add", "params.yaml")
    git("commit", "--quiet", "-m", "begin")
    text = (tmp_path / "params.yaml").read_text().replace("git_commit: false", f"git_commit: {str(commit).lower()}")
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.setattr(reports, "training", lambda: (tmp_path / "dvc.lock").write_text("schema: '2.0'\n"))

    scheduled.train()

    assert git("log", "--format=%s").split("\n")[0] == ("dvc.lock after train" if commit else "begin")
    assert git("show", "--name-only", "--format=").split() == (["dvc.lock"] if commit else ["params.yaml"])


def test_every_flow_is_deployed_and_two_are_scheduled():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        file, name = deployment["entrypoint"].split(":")
        assert hasattr(import_module(file.removesuffix(".py").replace("/", ".")), name)

    assert {each["name"] for each in deployments} == {"recurate", "train", "evaluate", "everything"}
    assert {each["name"] for each in deployments if "schedules" in each} == {"recurate", "evaluate"}


def test_errors_are_one_row_per_method():
    entry = {"px": 1.234, "ci95": [1.0, 1.5], "n": 40, "failures": 2}
    rows = reports.errors_by_method({"cam_mc": {"still": entry, "camera_lora": entry}, "obj_mc": {"still": entry}})

    assert rows[0] == {"method": "still", "CamMC": rows[0]["ObjMC"], "ObjMC": "1.23 (1.00 to 1.50), n 40, 2 failed"}
    assert rows[1]["ObjMC"] == "-"


def test_training_that_took_its_weights_from_elsewhere_has_no_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reports.training()


def test_pictures_are_sent_small(tmp_path):
    Image.effect_noise((4000, 3000), 50).save(tmp_path / "sheet.png")

    url = reports.picture_url(tmp_path / "sheet.png")

    assert url.startswith("data:image/jpeg;base64,")
    assert len(url) < 2_000_000

"""The flows over a stand-in pipeline: what runs, what is tried again, what is stopped."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.flow_engine import run_flow
from prefect.states import Completed, Failed, Running, Scheduled
from prefect.testing.utilities import prefect_test_harness

from flows import dvc, notices, reports, scheduled, server, slots
from flows.dead_runs import crash_dead_runs
from flows.dvc import DvcBusy, DvcError, needs_gpu, repro
from flows.watching import source_digest
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

    def record(stage, params, single_item=False, force=False, return_state=False):
        calls.append((stage, single_item))
        return Completed()

    monkeypatch.setattr(scheduled, "repro", record)
    for name in ("curation", "training", "evaluation"):
        monkeypatch.setattr(reports, name, lambda: None)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_stage_runs_and_one_that_fails_says_why_without_a_traceback(workspace, params, capsys):
    @flow
    def both():
        repro("collect", params)
        assert (workspace / "out.txt").read_text() == "hello\n"
        return Failed(message=repro("clips", params, return_state=True).message)

    capsys.readouterr()
    state = both(return_state=True)
    logs = "".join(capsys.readouterr())

    assert state.is_failed()
    assert re.match(
        r"(?s)stage:  clips\ncause:  the reason\nremedy: .*dvc repro clips.*\nlast lines .*the reason", state.message
    )
    assert "Traceback" not in logs


@pytest.mark.parametrize(("error", "seconds", "tries"), [(DvcBusy, 0.2, 3), (DvcBusy, 0, 1), (DvcError, 0.2, 1)])
def test_only_a_busy_repository_is_waited_for_as_long_as_the_parameters_say(params, monkeypatch, error, seconds, tries):
    calls, clock = [], iter([0, 0.1, 0.15, 0.3, 0.4])

    def fail(*arguments, afterwards):
        calls.append(arguments)
        raise error("no")

    flows = params.flows.model_copy(update={"wait_minutes": seconds / 60})
    monkeypatch.setattr(dvc, "run_dvc", fail)
    monkeypatch.setattr(dvc, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))

    @flow
    def once():
        return repro("collect", params.model_copy(update={"flows": flows}), return_state=True)

    assert once(return_state=True).is_failed()
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


def test_gpu_stages_hold_a_slot_that_anybody_can_give_back(params, monkeypatch):
    held = []
    monkeypatch.setattr(dvc, "run_dvc", lambda *arguments, afterwards: held.append((slots_in_use(), afterwards)))

    @flow
    def train():
        state = repro("camera_lora", params, return_state=True)
        return Failed(message=state.message) if state.is_failed() else None

    assert "no limit gpu" in train(return_state=True).message
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("gpu", 1)
    assert train(return_state=True).is_completed()
    assert slots_in_use() == 0
    [(used, (*_, program, _lease))] = held
    assert (used, program) == (1, slots.__file__)

    @flow
    def killed():
        with slots.gpu_slot() as lease:
            slots.release(lease)
            return Completed(message=str(slots_in_use()))

    assert killed(return_state=True).message == "0"


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


@pytest.mark.parametrize("victim", ["parent", "keeper", "command", "nobody"])
def test_whoever_is_killed_nothing_that_was_started_lives_on(tmp_path, victim):
    released = tmp_path / "released"
    code = (
        "import sys\n"
        "from flows.keeper import kept\n"
        "with kept(['sh', '-c', 'sleep 98 & setsid sleep 99; true'], afterwards=['touch', sys.argv[1]]) as process:\n"
        "    print(process.pid, flush=True)\n"
        "    sys.stdin.read(1) if sys.argv[2] == 'nobody' else process.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(released), victim],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with parent:
        process = psutil.Process(int(parent.stdout.readline()))
        wait_for(lambda: len(process.children(recursive=True)) >= 3)
        started = process.children(recursive=True)
        {
            "parent": parent.kill,
            "keeper": process.kill,
            "command": started[0].kill,
            "nobody": lambda: parent.stdin.write(b"."),
        }[victim]()
    wait_for(lambda: not any(alive(each.pid) for each in [process, *started]))
    if victim == "parent":
        wait_for(released.exists)
    else:
        assert not released.exists()


def wait_for(true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_evaluation_trains_nothing(recorded):
    scheduled.evaluate()

    assert recorded == [("evaluate", True), ("register", True)]


def test_nothing_slips_in_between_the_stages_of_a_flow(recorded, monkeypatch):
    text = Path("params.yaml").read_text()
    params = load_params()
    soon = params.model_copy(update={"flows": params.flows.model_copy(update={"wait_minutes": 0.001})})
    monkeypatch.setattr(scheduled, "load_params", lambda: soon)
    scheduled.LOCKS.mkdir()

    with FileLock(scheduled.PIPELINE.lock_file):
        state = scheduled.recurate(return_state=True)

    assert state.is_failed() and "another flow was at work" in state.message and not recorded
    assert scheduled.recurate(return_state=True).is_completed()
    assert [stage for stage, _ in recorded] == [*scheduled.CURATION]
    assert Path("params.yaml").read_text() == text


def test_a_flow_stops_at_the_first_stage_that_fails(recorded, monkeypatch):
    monkeypatch.setattr(
        scheduled, "repro", lambda stage, *_, **__: recorded.append(stage) or Failed(message="stage: x")
    )

    state = scheduled.everything(return_state=True)

    assert state.is_failed() and state.message == "stage: x"
    assert recorded == [scheduled.CURATION[0]]


def test_a_changed_source_starts_recurate_once(recorded, monkeypatch, tmp_path):
    text = Path("params.yaml").read_text().replace("source: synthetic ", "source: folder ", 1)
    Path("params.yaml").write_text(text)
    started = []
    monkeypatch.setattr(scheduled, "run_deployment", lambda name, **_: started.append(name))

    assert "inputs/mixed: no such folder" in scheduled.watch(return_state=True).message
    for split in ("mixed", "camera"):
        (tmp_path / "inputs" / split).mkdir(parents=True)
        (tmp_path / "inputs" / split / "a.mp4").write_bytes(b"1")
    assert scheduled.watch(return_state=True).is_completed()
    assert scheduled.watch(return_state=True).is_completed()
    assert started == ["recurate/recurate"]
    looks = {source_digest(load_params())}
    (tmp_path / "inputs/mixed/a.mp4").write_bytes(b"22")
    looks.add(source_digest(load_params()))
    os.utime(tmp_path / "inputs/mixed/a.mp4", ns=(1, 1))
    looks.add(source_digest(load_params()))
    (tmp_path / "inputs/mixed/a.mp4").rename(tmp_path / "inputs/mixed/b.mp4")
    looks.add(source_digest(load_params()))
    assert len(looks) == 4


def test_automations_crash_dead_runs_and_report_failures():
    with pytest.raises(notices.NoticeError, match="no block slack-webhook/ops"):
        notices.create_automations("slack-webhook/ops")
    notices.create_automations(None)
    notices.create_automations(None)

    with get_client(sync_client=True) as client:
        [zombies] = client.read_automations_by_name(notices.ZOMBIES)
        assert not client.read_automations_by_name(notices.FAILURES)
    assert zombies.actions[0].state == StateType.CRASHED


@pytest.mark.parametrize("kind", ["webhook", "custom-webhook"])
def test_a_notice_of_a_failed_run_arrives_and_the_secret_of_its_address_is_nowhere_else(inbox, capfd, kind):
    address, received = inbox
    if kind == "webhook":
        block = Webhook(url=f"{address}/SECRET")
    else:
        block = CustomWebhookNotificationBlock(
            name="told",
            url=address + "/{{token}}",
            json_data={"text": "{{subject}}\n{{body}}"},
            secrets={"token": "SECRET"},
        )
    block.save("told")
    notices.create_automations(f"{kind}/told")
    said = dvc.failure("clips", ["Running stage 'clips':", "the reason"], "dvc repro clips ended with exit code 255")

    @flow
    def nightly():
        return Failed(message=said)

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(nightly), name=kind)
        run = client.create_flow_run_from_deployment(deployment)
        run_flow(nightly, flow_run=run, return_type="state")
        [automation] = client.read_automations_by_name(notices.FAILURES)
        wait_for(lambda: "action.executed" in events(client, resource={"id": [f"prefect.automation.{automation.id}"]}))
        told = events(client)
    notices.create_automations(None)

    [(path, text)] = received
    assert path == "/SECRET"
    assert (text if kind == "webhook" else json.loads(text)["text"]).endswith(
        f"nightly, run {run.name}: Failed\n"
        "stage:  clips\n"
        "cause:  the reason\n"
        "remedy: mend the cause, then run the flow again or `dvc repro clips`; finished items are kept\n"
        "last lines (dvc repro clips ended with exit code 255):\n"
        "  Running stage 'clips':\n"
        "  the reason"
    )
    assert "SECRET" not in told + "".join(capfd.readouterr())


@pytest.fixture
def inbox():
    """The address of a web server, and what was sent to it: paths with texts."""
    received = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Inbox) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}", received
        web.shutdown()


def events(client, **which) -> str:
    """The latest events that the server keeps, as JSON."""
    return client.request("POST", "/events/filter", json={"filter": which, "limit": 50}).text


def test_runs_of_a_dead_worker_are_crashed(tmp_path):
    @flow
    def some():
        pass

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=server.WORK_POOL, type="process"))
        deployment = client.create_deployment(client.create_flow(some), name="some", work_pool_name=server.WORK_POOL)
        runs = [client.create_flow_run_from_deployment(deployment, state=state()) for state in (Running, Scheduled)]

        crash_dead_runs()

        assert [client.read_flow_run(run.id).state.type.value for run in runs] == ["CRASHED", "SCHEDULED"]


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


def test_every_flow_is_deployed_and_three_are_scheduled():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        file, name = deployment["entrypoint"].split(":")
        assert hasattr(import_module(file.removesuffix(".py").replace("/", ".")), name)

    own = [each for each in deployments if each["work_pool"]["name"] == server.WORK_POOL]
    assert {each["name"] for each in own} == {"recurate", "watch", "train", "evaluate", "everything"}
    assert {each["work_pool"]["name"] for each in deployments} == set(server.WORK_POOLS)
    assert {each["name"] for each in deployments if "schedules" in each} == {"recurate", "watch", "evaluate"}


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

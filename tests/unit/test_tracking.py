"""Runs of the stages in MLflow, against a real sqlite store."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from models.sampling.identity import weights_hash
from models.serving.cli import main
from stages.params import Params, load_params
from stages.run.mlflow_runs import stage_run
from stages.run.mlflow_store import TrackingError, connect, newest_run, require_own_place
from stages.run.spool import Spool, flatten
from stages.run.system_metrics import system_metrics
from stages.run.timing import TIMING_FILE, timed

ROOT = Path(__file__).parents[2]
LOCK = f"""
stages:
  clips@camera: {{outs: [{{path: data/clips/camera, md5: {"0" * 32}.dir, size: 4567, nfiles: 12}}]}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def params(store, tmp_path, monkeypatch) -> Params:
    monkeypatch.chdir(tmp_path)
    settings = {
        "tracking_uri": f"sqlite:///{store}/mlflow.db",
        "artifact_location": str(store / "mlruns"),
        "seconds_to_send": 600.0,
    }
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(update={"mlflow": params.mlflow.model_copy(update=settings)})


def run_of(run_id: str):
    return MlflowClient().get_run(run_id)


def test_a_run_has_its_parameters_curve_files_and_tags(params):
    Path("weights").mkdir()
    Path("weights/a.safetensors").write_bytes(b"1")
    Path("picture.txt").write_text("a picture")
    Path("dvc.yaml").write_text("stages: {camera_lora: {deps: [data/clips/camera, data/tracks/camera, models/lora]}}")
    Path("dvc.lock").write_text(LOCK)

    with stage_run("camera_lora", params) as run:
        for step in range(3):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.artifact("picture.txt", "pictures")
        run.picture(np.zeros((4, 6, 3), np.uint8), "000003", "validation")
        run.weights("weights")

    logged = run_of(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["camera_lora.rank"] == str(params.camera_lora.rank)
    assert [point.value for point in MlflowClient().get_metric_history(run.run_id, "loss")] == [1, 1 / 2, 1 / 3]
    assert [file.path for file in MlflowClient().list_artifacts(run.run_id, "pictures")] == ["pictures/picture.txt"]
    assert logged.data.tags["weights.weights"] == weights_hash("weights")
    assert len(logged.data.tags["dvc_lock"]) == 64
    assert "git_commit" in logged.data.tags
    [picture] = MlflowClient().list_artifacts(run.run_id, "validation")
    assert picture.path == "validation/000003.png"
    [read] = logged.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("data/clips/camera", f"{'0' * 32}.dir")
    assert json.loads(read.dataset.profile) == {"bytes": 4567, "files": 12}
    assert [(tag.key, tag.value) for tag in read.tags] == [("mlflow.data.context", "camera_lora")]


def test_the_load_of_the_machine_is_measured_while_a_stage_runs_and_no_longer():
    rows: list[dict] = []
    measured = threading.Event()

    def log(values, number):
        rows.append({"number": number, **values})
        measured.set()

    with system_metrics(log, 1e-3):
        assert measured.wait(60)
    assert "system" not in {thread.name for thread in threading.enumerate()}
    assert rows[0]["number"] == 0 and rows[0]["system/system_memory_usage_megabytes"] > 0
    with system_metrics(log, None):
        assert "system" not in {thread.name for thread in threading.enumerate()}


def test_stages_of_one_pipeline_have_one_parent(params):
    with stage_run("camera_lora", params) as first:
        pass
    with stage_run("object_lora", params) as second:
        pass
    other = params.model_copy(update={"profile": "other"})
    with stage_run("camera_lora", other) as third:
        pass

    assert first.parent_id == second.parent_id != third.parent_id
    assert run_of(second.run_id).data.tags["mlflow.parentRunId"] == first.parent_id


def test_where_a_stage_runs_does_not_change_its_parent(params):
    elsewhere = params.model_copy(update={"compute": params.compute.model_copy(update={"workers": 7})})
    with stage_run("camera_lora", params) as here:
        pass
    with stage_run("camera_lora", elsewhere) as there:
        pass

    assert here.parent_id == there.parent_id


def test_a_stage_that_fails_fails_its_run_and_its_parent_and_keeps_its_numbers(params):
    with pytest.raises(ZeroDivisionError), stage_run("camera_lora", params) as run:
        run.metrics({"loss": 2.0}, 1)
        raise ZeroDivisionError

    assert run_of(run.run_id).info.status == "FAILED"
    assert run_of(run.run_id).data.metrics == {"loss": 2.0}
    assert run_of(run.parent_id).info.status == "FAILED"
    assert not TIMING_FILE.exists()


def test_the_newest_run_with_some_weights_is_found(params):
    _, experiment = connect(params.mlflow)
    runs = []
    for content in ("first", "second", "first"):
        with stage_run("object_lora", params) as run:
            run.tags({"weights.object_lora": content})
        runs.append(run.run_id)

    assert newest_run(experiment, "object_lora", {"weights.object_lora": "first"}) == runs[2]
    assert newest_run(experiment, "object_lora", {"weights.object_lora": "second"}) == runs[1]
    assert newest_run(experiment, "camera_lora", {"weights.object_lora": "first"}) is None


def test_timing_keeps_the_stages_that_were_timed_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with timed("one"):
        pass
    with timed("two"):
        pass

    assert list(json.loads(TIMING_FILE.read_text())) == ["one", "two"]


def test_the_hash_of_weights_depends_on_names_and_contents(tmp_path):
    hashes = set()
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"2")):
        folder = tmp_path / f"{name}{content.decode()}"
        folder.mkdir()
        (folder / f"{name}.safetensors").write_bytes(content)
        (folder / "loss.csv").write_text(folder.name)
        hashes.add(weights_hash(folder))

    assert len(hashes) == 3


def test_nested_parameters_are_flattened():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2]}) == {"a.b.c": 1, "d": [1, 2]}


def unreachable(params: Params, uri: str) -> Params:
    settings = {"tracking_uri": uri, "seconds_to_send": 600.0}
    return params.model_copy(update={"mlflow": params.mlflow.model_copy(update=settings)})


def test_a_store_that_fails_costs_a_line_and_is_told_later(params, store, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("stages.run.mlflow_runs.SECONDS_AFTER_TROUBLE", 0.2)
    monkeypatch.setattr("stages.run.mlflow_runs.SECONDS_BETWEEN_TRIES", 0.2)
    connect(params.mlflow)
    damaged = tmp_path / "bad.db"
    damaged.write_bytes(b"this is no database, but it was one" * 100)
    settings = unreachable(params, f"sqlite:///{damaged}")
    with stage_run("object_lora", settings) as run:
        run.metrics({"loss": 0.5, "nothing": float("nan")}, 3)
        Path("curve.csv").write_text("step,loss\n")
        run.artifact("curve.csv")
        Path("curve.csv").unlink()

    said = capfd.readouterr().err
    assert "image-conductor sync" in said
    assert "Traceback" not in said
    assert run.run_id == ""

    shutil.copyfile(store / "mlflow.db", damaged)
    run._thread.join(200)  # in this test the process lives on, and sends it itself
    assert not run._thread.is_alive()
    logged = run_of(run.run_id)
    assert (logged.info.status, logged.data.metrics) == ("FINISHED", {"loss": 0.5})
    assert [file.path for file in MlflowClient().list_artifacts(run.run_id)] == ["curve.csv"]
    assert not list(Path(".mlflow_waiting").iterdir())


KILLED = """
import os, signal, sys
from stages.params import load_params
from stages.run.mlflow_runs import stage_run

params = load_params(sys.argv[1])
params = params.model_copy(update={"mlflow": params.mlflow.model_copy(update={
    "tracking_uri": sys.argv[2], "artifact_location": sys.argv[3]})})
with stage_run("camera_lora", params) as run:
    print(run.must_have_begun(), flush=True)
    run.metrics({"loss": 1.0}, 1)
    run._write()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start_killed(params: Params) -> subprocess.Popen:
    settings = params.mlflow
    where = settings.tracking_uri, str(settings.artifact_location)
    command = [sys.executable, "-c", KILLED, str(ROOT / "params.yaml"), *where]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_is_closed_by_the_next_or_gone_on_with(params):
    killed = start_killed(params).communicate()[0].strip()
    with stage_run("object_lora", params) as run:
        run.must_have_begun()
        assert run_of(killed).info.status == "KILLED"
        assert run_of(killed).data.metrics == {"loss": 1.0}

    with stage_run("camera_lora", params, go_on=True) as again:
        assert again.must_have_begun() == killed
        assert run_of(killed).info.status == "RUNNING"
    assert run_of(killed).info.status == "FINISHED"


OPENS = """
import sys
from stages.params import load_params
from stages.run.mlflow_store import connect

settings = {"tracking_uri": sys.argv[2], "artifact_location": "mlruns"}
print(connect(load_params(sys.argv[1]).mlflow.model_copy(update=settings))[1])
"""


def test_processes_may_open_a_new_store_at_once(tmp_path):
    command = [sys.executable, "-c", OPENS, str(ROOT / "params.yaml"), f"sqlite:///{tmp_path}/new.db"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    assert [process.communicate()[0].strip() for process in started] == ["1"] * 2


def test_entries_that_a_full_disk_cut_off_are_left_out_and_hold_nothing_up(params, capsys, monkeypatch):
    spool = Spool.new("camera_lora")
    for line in ('{"kind": "be', '{"kind": "tags", "values": {"a": "b"}}'):
        with (spool.folder / "journal.jsonl").open("a") as journal:
            journal.write(f"{line}\n")
    spool.release()
    monkeypatch.setattr("stages.run.sync.load_params", lambda: params)
    main(["sync"])
    assert capsys.readouterr().out.startswith("1 runs sent to sqlite:///")
    assert not list(Path(".mlflow_waiting").iterdir())


def test_a_run_that_was_deleted_holds_nothing_up(params):
    with stage_run("camera_lora", params) as run:
        MlflowClient().delete_run(run.must_have_begun())
        run.metrics({"loss": 1.0})
    assert not list(Path(".mlflow_waiting").iterdir())


def test_a_full_disk_costs_an_entry_and_not_the_stage(params, capfd, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with stage_run("object_lora", params) as run, monkeypatch.context() as context:
        context.setattr(run._spool, "add", full)
        context.setattr(run._spool, "keep_file", full)
        run.metrics({"loss": 1.0})
        run.tags({"a": "b"})
        run.artifact("nowhere.csv")
    assert "No space left on device" in capfd.readouterr().err
    assert run_of(run.run_id).info.status == "FINISHED"


def test_a_store_that_was_moved_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_params(ROOT / "params.yaml").mlflow
    require_own_place(str(tmp_path / "mlruns"), settings)
    require_own_place(f"file://{tmp_path}/mlruns", settings)
    require_own_place("/elsewhere", settings.model_copy(update={"tracking_uri": "http://server"}))
    with pytest.raises(TrackingError, match="/elsewhere/mlruns, not in .*Give mlflow.experiment another name"):
        require_own_place("/elsewhere/mlruns", settings)

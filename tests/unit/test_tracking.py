"""Runs of the stages in MLflow, against a real sqlite store."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stages.params import Params, load_params
from stages.run.mlflow_runs import connect, flatten, newest_run, stage_run, weights_hash
from stages.run.timing import TIMING_FILE, timed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def params(store, tmp_path, monkeypatch) -> Params:
    monkeypatch.chdir(tmp_path)
    settings = {"tracking_uri": f"sqlite:///{store}/mlflow.db", "artifact_location": str(store / "mlruns")}
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(update={"mlflow": params.mlflow.model_copy(update=settings)})


def run_of(run_id: str):
    return MlflowClient().get_run(run_id)


def test_a_run_has_its_parameters_curve_files_and_tags(params):
    Path("weights").mkdir()
    Path("weights/a.safetensors").write_bytes(b"1")
    Path("picture.txt").write_text("a picture")
    Path("dvc.lock").write_text("schema: '2.0'")

    with stage_run("camera_lora", params) as run:
        for step in range(3):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.artifact("picture.txt", "pictures")
        run.weights("weights")

    logged = run_of(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["camera_lora.rank"] == str(params.camera_lora.rank)
    assert [point.value for point in MlflowClient().get_metric_history(run.run_id, "loss")] == [1, 1 / 2, 1 / 3]
    assert [file.path for file in MlflowClient().list_artifacts(run.run_id, "pictures")] == ["pictures/picture.txt"]
    assert logged.data.tags["weights.weights"] == weights_hash("weights")
    assert len(logged.data.tags["dvc_lock"]) == 64
    assert "git_commit" in logged.data.tags


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

"""MLflow's store: how it is opened, and how the entries of a run are sent to it.

Everything here may fail or hang for as long as a server or a disk does. `stages.run.mlflow_runs` calls it from a thread
that a stage does not wait for.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from models.errors import UserError
from stages.params import MLflowParams
from stages.run.spool import Spool

REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # for what is in the entry, or its run was deleted
SQLITE = "sqlite:///"
LONGEST_DIGEST = 36  # characters that MLflow's table of data sets takes
SECONDS_TO_MAKE = 120  # that one process waits for another that makes the tables of a new store

logger = logging.getLogger(__name__)


class TrackingError(UserError):
    """MLflow cannot be reached, or its store is damaged."""


def connect(settings: MLflowParams) -> tuple[Any, str]:
    """MLflow, ready for use, and the id of the experiment, which is made if it does not exist.

    A SQLite store is opened under a lock, since MLflow's tables cannot be made by two processes at once.

    Raises:
        TrackingError: the store or server cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    if settings.tracking_uri.startswith(SQLITE):  # a pooled connection would stay with a file that was since replaced
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its errors are raised too
    mlflow.set_tracking_uri(settings.tracking_uri)
    try:
        with _lock(settings.tracking_uri):
            experiment = mlflow.get_experiment_by_name(settings.experiment)
            if experiment is not None:
                require_own_place(experiment.artifact_location, settings)
                return mlflow, experiment.experiment_id
            return mlflow, _made(mlflow, settings)
    except TrackingError:
        raise
    except Exception as error:  # MLflow raises errors of its own, of SQLAlchemy and of the network
        raise TrackingError(
            f"params.yaml: mlflow.tracking_uri: {settings.tracking_uri} cannot be used: {short_cause(error)}"
        ) from None


def require_own_place(location: str, settings: MLflowParams) -> None:
    """Raise TrackingError if an experiment's files go to another folder than params.yaml says, as after a move.

    Args:
        location: of the experiment, which MLflow keeps as an absolute path.
    """
    wanted = settings.artifact_location
    if wanted is None or "://" in wanted or not settings.tracking_uri.startswith(SQLITE):
        return
    found = Path(location.removeprefix("file://"))
    if found.resolve() != Path(wanted).resolve():
        raise TrackingError(
            f"params.yaml: mlflow.experiment: {settings.experiment} keeps its files in {found}, not in "
            f"{Path(wanted).resolve()}: the store was made there, or moved since. Give mlflow.experiment another name, "
            "and register here: dvc repro --force --single-item register"
        )


def newest_run(experiment: str, stage: str, tags: Mapping[str, str]) -> str | None:
    """The id of the last run of `stage` that has all `tags`; None if there is none."""
    from mlflow import MlflowClient

    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in {"stage": stage, **tags}.items())
    runs = MlflowClient().search_runs([experiment], wanted, max_results=1)
    return runs[0].info.run_id if runs else None


def send(spool: Spool, settings: MLflowParams) -> bool:
    """Send the entries that were not sent yet; True if the run's end is among what was sent.

    An entry that MLflow refuses for what is in it, is left out with a warning.

    Raises:
        Exception: of MLflow, of its store or of the network. What was sent until then is noted.
    """
    store: tuple[Any, str] | None = None
    for entry, offset in spool.waiting():
        if entry["kind"] != "begin" and not spool.sent.run_id:
            continue  # its beginning was not kept on a full disk, so there is no run that it belongs to
        mlflow, experiment = store = store or connect(settings)
        try:
            _send_entry(spool, entry, experiment)
        except mlflow.exceptions.MlflowException as error:
            if entry["kind"] == "begin" or error.error_code not in REFUSED:
                raise
            logger.warning("%s was not logged: %s", entry["kind"], short_cause(error))
        spool.note(offset=offset, ended=entry["kind"] == "end")
    return spool.sent.ended


def send_left_over(settings: MLflowParams) -> int:
    """Send what processes that have ended left behind; runs that have no end become KILLED. Return how many runs.

    Raises:
        Exception: see `send`.
    """
    count = 0
    for spool in Spool.left_over():
        if not send(spool, settings) and spool.sent.run_id:
            spool.add("end", status="KILLED")
            send(spool, settings)
        spool.delete()
        count += 1
    return count


def short_cause(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _send_entry(spool: Spool, entry: Mapping[str, Any], experiment: str) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client, run_id = MlflowClient(), spool.sent.run_id
    match entry["kind"]:
        case "begin":
            _begin(client, spool, entry, experiment)
        case "metrics":
            client.log_batch(run_id, metrics=[Metric(*point) for point in entry["points"]])
        case "inputs":
            client.log_inputs(run_id, datasets=_datasets(entry["data_sets"], entry["context"]))
        case "tags":
            for name, value in entry["values"].items():
                client.set_tag(run_id, name, value)
        case "artifact":
            path = spool.folder / entry["path"]
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(run_id, str(path), entry["folder"])
        case "end":
            client.set_terminated(run_id, entry["status"])
            client.set_terminated(spool.sent.parent_id, entry["status"])


def _datasets(data_sets: Sequence[Mapping[str, Any]], context: str) -> list[Any]:
    """Data sets as MLflow shows them. See `stages.run.data_sets.DataSet`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag("mlflow.data.context", context)]
    return [
        DatasetInput(
            Dataset(
                each["path"],
                each["digest"][:LONGEST_DIGEST],
                "dvc",
                json.dumps({"uri": each["path"]}),
                profile=json.dumps({"bytes": each["size"], "files": each["files"]}),
            ),
            tags,
        )
        for each in data_sets
    ]


def _begin(client: Any, spool: Spool, entry: Mapping[str, Any], experiment: str) -> None:
    """Make the run and the pipeline's run above it, or open them again."""
    from mlflow.entities import Param

    run_id = newest_run(experiment, entry["stage"], entry["same"]) if entry["go_on"] else None
    if run_id is not None:
        parent = client.get_run(run_id).data.tags["mlflow.parentRunId"]
        client.update_run(run_id, "RUNNING")
        client.update_run(parent, "RUNNING")
    else:
        parent = _pipeline_run(client, experiment, entry["pipeline"])
        tags = {**entry["tags"], "mlflow.parentRunId": parent}
        run_id = client.create_run(experiment, entry["time"], tags, entry["stage"]).info.run_id
        client.log_batch(run_id, params=[Param(name, value) for name, value in entry["params"].items()])
    spool.note(run_id=run_id, parent_id=parent)


def _pipeline_run(client: Any, experiment: str, tags: Mapping[str, str]) -> str:
    """The id of the parent run, opened again or made."""
    runs = client.search_runs([experiment], f"tags.pipeline = '{tags['pipeline']}'", max_results=1)
    if runs:
        client.update_run(runs[0].info.run_id, "RUNNING")
        return runs[0].info.run_id
    return client.create_run(experiment, run_name=f"pipeline {tags['pipeline'][:8]}", tags=dict(tags)).info.run_id


def _made(mlflow: Any, settings: MLflowParams) -> str:
    """The id of the experiment, made here or by another process that was quicker."""
    try:
        return mlflow.create_experiment(settings.experiment, settings.artifact_location)
    except mlflow.exceptions.MlflowException:
        experiment = mlflow.get_experiment_by_name(settings.experiment)
        if experiment is None:
            raise
        return experiment.experiment_id


def _lock(tracking_uri: str) -> Any:
    """The lock of a SQLite store; a server has its own."""
    if not tracking_uri.startswith(SQLITE):
        return nullcontext()
    file = Path(tracking_uri.removeprefix(SQLITE))
    return FileLock(file.with_name(f".{file.name}.lock"), timeout=SECONDS_TO_MAKE)

"""The one place that talks to MLflow: a run per stage, below a run of the whole pipeline.

    with stage_run("camera_lora", params) as run:
        run.metrics({"loss": 0.31}, step=50)            # gathered, sent every few seconds
        run.artifact("artifacts/camera_lora/loss.csv")
        run.weights("artifacts/camera_lora")

Runs are tied to code and data by tags (`git_commit`, `dvc_lock`, `weights.<name>`), never the other way round: run ids
and times do not enter the outputs of DVC.
"""

import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.data.items import content_hash, item_id
from stages.params import MLflowParams, Params
from stages.run.timing import timed

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

SECONDS_BETWEEN_SENDS = 5.0
MOST_METRICS_PER_SEND = 500

logger = logging.getLogger(__name__)


class StageRun:
    """The MLflow run of one stage."""

    def __init__(self, run_id: str, parent_id: str):
        from mlflow import MlflowClient

        self.run_id, self.parent_id = run_id, parent_id
        self._client = MlflowClient()
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; cheap enough for every training step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now, step) for name, value in values.items()]
        late = time.monotonic() - self._sent > SECONDS_BETWEEN_SENDS
        if late or len(self._waiting) >= MOST_METRICS_PER_SEND:
            self.send()

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested ones under `outer.inner`."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in flatten(values).items()]
        self._client.log_batch(self.run_id, params=entries)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or all files of a folder, to the run: pictures, videos, tables."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        log(self.run_id, str(path), folder)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of this run."""
        for name, value in values.items():
            self._client.set_tag(self.run_id, name, value)

    def weights(self, folder: str | Path) -> None:
        """Tag the run with the hash of the weights in `folder`."""
        self.tags({f"weights.{Path(folder).resolve().name}": weights_hash(folder)})

    def send(self) -> None:
        """Send the metrics gathered so far. A tracking server that fails costs numbers, not the training."""
        from mlflow.exceptions import MlflowException

        for start in range(0, len(self._waiting), MOST_METRICS_PER_SEND):
            batch = self._waiting[start : start + MOST_METRICS_PER_SEND]
            try:
                self._client.log_batch(self.run_id, metrics=batch)
            except MlflowException as error:
                logger.warning("%d metrics were not logged: %s", len(batch), error)
        self._waiting, self._sent = [], time.monotonic()


class SilentRun:
    """Stands in for a `StageRun` where nothing is logged."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        pass

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        pass

    def weights(self, folder: str | Path) -> None:
        pass


@contextmanager
def stage_run(
    stage: str, params: Params, tags: Mapping[str, str] | None = None, go_on: bool = False
) -> Iterator[StageRun]:
    """The MLflow run of `stage`, with its parameters logged; it ends as FINISHED, or FAILED on an exception.

    All stages run on one git commit with the same params.yaml share one parent run.

    Args:
        tags: further ones.
        go_on: continue the newest run of the stage that has these tags, if there is one.
    """
    with timed(stage):
        mlflow, experiment = connect(params.mlflow)
        earlier = newest_run(experiment, stage, tags or {}) if go_on else None
        parent = _parent(earlier) if earlier else _pipeline_run(experiment, params)
        tags = {"stage": stage, "profile": params.profile, **provenance(), **(tags or {})}
        with mlflow.start_run(
            run_id=earlier, experiment_id=experiment, run_name=stage, parent_run_id=parent, nested=True, tags=tags
        ) as active:
            run = StageRun(active.info.run_id, parent)
            if not earlier:
                sections = params.model_dump(mode="json", by_alias=True)
                run.params({stage: sections.get(stage, {}), "video": sections["video"]})
            try:
                yield run
            except BaseException:
                run.send()
                _end(parent, "FAILED")
                raise
            run.send()
            _end(parent, "FINISHED")


def connect(settings: MLflowParams) -> tuple[Any, str]:
    """MLflow, ready for use, and the id of the experiment, which is made if it does not exist."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from mlflow.exceptions import MlflowException

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(settings.tracking_uri)
    experiment = mlflow.get_experiment_by_name(settings.experiment)
    if experiment is not None:
        return mlflow, experiment.experiment_id
    try:
        return mlflow, mlflow.create_experiment(settings.experiment, settings.artifact_location)
    except MlflowException:  # another stage was quicker
        experiment = mlflow.get_experiment_by_name(settings.experiment)
        if experiment is None:
            raise
        return mlflow, experiment.experiment_id


def newest_run(experiment: str, stage: str, tags: Mapping[str, str]) -> str | None:
    """The id of the last run of `stage` that has all `tags`; None if there is none."""
    from mlflow import MlflowClient

    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in {"stage": stage, **tags}.items())
    runs = MlflowClient().search_runs([experiment], wanted, max_results=1)
    return runs[0].info.run_id if runs else None


def provenance() -> dict[str, str]:
    """What code and data a run stands on: the git commit, and the hash of dvc.lock as it is now."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    lock = Path("dvc.lock")
    return {
        "git_commit": git.stdout.strip() if git.returncode == 0 else "none",
        "dvc_lock": content_hash(lock) if lock.exists() else "none",
    }


def weights_hash(folder: str | Path) -> str:
    """One hash for all `.safetensors` files below `folder`, by their names and contents."""
    folder = Path(folder)
    files = sorted(folder.rglob("*.safetensors"))
    return item_id([(path.relative_to(folder).as_posix(), content_hash(path)) for path in files])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _pipeline_run(experiment: str, params: Params) -> str:
    """The id of the parent run for this commit and these parameters, opened again or made."""
    from mlflow import MlflowClient

    client = MlflowClient()
    commit = provenance()["git_commit"]
    pipeline = item_id(commit, params.model_dump(mode="json", exclude={"compute", "mlflow", "serve", "flows"}))
    runs: list[Run] = client.search_runs([experiment], f"tags.pipeline = '{pipeline}'", max_results=1)
    if runs:
        client.update_run(runs[0].info.run_id, "RUNNING")
        return runs[0].info.run_id
    tags = {"pipeline": pipeline, "git_commit": commit, "profile": params.profile}
    return client.create_run(experiment, run_name=f"pipeline {pipeline[:8]}", tags=tags).info.run_id


def _parent(run_id: str) -> str:
    from mlflow import MlflowClient

    return MlflowClient().get_run(run_id).data.tags["mlflow.parentRunId"]


def _end(run_id: str, status: str) -> None:
    from mlflow import MlflowClient

    MlflowClient().set_terminated(run_id, status)

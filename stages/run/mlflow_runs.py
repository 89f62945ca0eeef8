"""Runs in MLflow: a run per stage, below a run of the whole pipeline.

    with stage_run("camera_lora", params) as run:
        run.metrics({"loss": 0.31}, step=50)
        run.artifact("artifacts/camera_lora/loss.csv")
        run.weights("artifacts/camera_lora")

MLflow never costs a training. What a run tells is written to disk first (`stages.run.spool`), and a thread sends it. If
MLflow cannot take it, the stage goes on, ends well, and says in one line that `image-conductor sync` sends the rest.

Runs are tied to code and data by tags (`git_commit`, `dvc_lock`, `weights.<name>`), never the other way round: run ids
and times do not enter the outputs of DVC.
"""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from models.sampling.identity import weights_hash
from stages.data.items import content_hash, item_id
from stages.params import MLflowParams, Params
from stages.run.data_sets import data_sets
from stages.run.mlflow_store import TrackingError, send, send_left_over, short_cause
from stages.run.spool import Spool, flatten
from stages.run.system_metrics import system_metrics
from stages.run.timing import timed

SECONDS_BETWEEN_SENDS = 5.0
MOST_METRICS_PER_SEND = 500
SECONDS_BETWEEN_TRIES = 5.0
SECONDS_AFTER_TROUBLE = 10.0  # longest wait at the end of a stage once MLflow has failed
LONGEST_PARAMETER = 6000  # characters that MLflow takes
CODE = ("models", "stages", "flows", "params.yaml", "dvc.yaml")


class StageRun:
    """The MLflow run of one stage. `metrics` and the like return at once; a thread sends what they are given."""

    def __init__(self, spool: Spool, settings: MLflowParams):
        self._spool, self._settings = spool, settings
        self._waiting: list[tuple[str, float, int, int]] = []
        self._writing = threading.RLock()  # the stage and the thread of system metrics log at once
        self._written = time.monotonic()
        self._woken, self._ended = threading.Event(), threading.Event()
        self._begun, self._trouble = threading.Event(), ""
        self._thread = threading.Thread(target=self._send, name="mlflow", daemon=True)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty while MLflow has not taken it."""
        return self._spool.sent.run_id

    @property
    def parent_id(self) -> str:
        """MLflow's id of the run of the whole pipeline; empty while MLflow has not taken it."""
        return self._spool.sent.parent_id

    def begin(self) -> None:
        """Start sending."""
        self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; cheap enough for every training step."""
        now = int(time.time() * 1000)
        points = [(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)]
        with self._writing:
            self._waiting += points
            late = time.monotonic() - self._written > SECONDS_BETWEEN_SENDS
            if late or len(self._waiting) >= MOST_METRICS_PER_SEND:
                self._write()

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or all files of a folder, to the run: pictures, videos, tables."""
        try:
            kept = self._spool.keep_file(Path(path))
        except OSError as error:
            print(f"MLflow: {path} was not kept for it: {error}", file=sys.stderr)
            return
        self._add("artifact", path=kept, folder=folder)

    def picture(self, pixels: np.ndarray, name: str, folder: str) -> None:
        """Log a picture (H, W, 3) uint8 as a PNG file."""
        try:
            with TemporaryDirectory() as place:
                path = Path(place) / f"{name}.png"
                Image.fromarray(pixels).save(path)
                self.artifact(path, folder)
        except OSError as error:
            print(f"MLflow: picture {name} was not kept for it: {error}", file=sys.stderr)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of this run."""
        self._add("tags", values=dict(values))

    def weights(self, folder: str | Path) -> None:
        """Tag the run with the hash of the weights in `folder`."""
        self.tags({f"weights.{Path(folder).resolve().name}": weights_hash(folder)})

    def must_have_begun(self) -> str:
        """Wait until MLflow has taken the run, and return its id: for what cannot be done without MLflow.

        Raises:
            TrackingError: it has not within `mlflow.seconds_to_send`.
        """
        if not self._waited_for(self._begun.is_set):
            raise TrackingError(self._trouble or f"MLflow at {self._settings.tracking_uri} does not answer")
        return self.run_id

    def end(self, status: str) -> None:
        """Write the last entry and wait for a while until everything is sent; warn if it is not."""
        self._write()
        self._add("end", status=status)
        self._ended.set()
        self._woken.set()
        if not self._waited_for(lambda: not self._thread.is_alive()):
            print(
                f"MLflow did not take this run: {self._trouble or 'no answer'}. It waits in {self._spool.folder}; "
                "send it later: image-conductor sync",
                file=sys.stderr,
            )

    def _waited_for(self, happened: Callable[[], bool]) -> bool:
        """Wait until something has happened, for a shorter time once MLflow has failed; whether it has."""
        began = time.monotonic()
        while not happened():
            longest = SECONDS_AFTER_TROUBLE if self._trouble else self._settings.seconds_to_send
            if time.monotonic() - began > min(longest, self._settings.seconds_to_send):
                return False
            time.sleep(0.05)
        return True

    def _write(self) -> None:
        with self._writing:
            for start in range(0, len(self._waiting), MOST_METRICS_PER_SEND):
                self._add("metrics", points=self._waiting[start : start + MOST_METRICS_PER_SEND])
            self._waiting, self._written = [], time.monotonic()

    def _add(self, kind: str, **content: Any) -> None:
        """Write an entry; a disk that is full costs the entry, not the stage."""
        try:
            self._spool.add(kind, **content)
        except OSError as error:
            print(f"MLflow: {kind} of this run were not kept: {error}", file=sys.stderr)
        self._woken.set()

    def _send(self) -> None:
        """Send until the run has ended and nothing is left; try again for as long as the process lives."""
        left_over = True
        while True:
            self._woken.clear()
            try:
                if left_over:
                    send_left_over(self._settings)
                    left_over = False
                ended = send(self._spool, self._settings)
            except Exception as error:
                if not self._trouble:
                    print(f"MLflow: {short_cause(error)}; the stage goes on without it", file=sys.stderr)
                self._trouble = short_cause(error)
                self._ended.wait(SECONDS_BETWEEN_TRIES)
                if self._ended.is_set():
                    time.sleep(1)
                continue
            if self.run_id:
                self._begun.set()
            if ended:
                self._spool.delete()
                return
            self._woken.wait()


class SilentRun:
    """Stands in for a `StageRun` where nothing is logged."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        pass

    def picture(self, pixels: np.ndarray, name: str, folder: str) -> None:
        pass

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        pass

    def weights(self, folder: str | Path) -> None:
        pass


@contextmanager
def stage_run(
    stage: str, params: Params, tags: Mapping[str, str] | None = None, go_on: bool = False
) -> Iterator[StageRun]:
    """The MLflow run of `stage`, with its parameters logged.

    It ends as FINISHED, as FAILED on an exception, as KILLED on an interruption. A run whose process was killed becomes
    KILLED when the next stage begins. All stages on one git commit with the same params.yaml share one parent run.

    Args:
        tags: further ones.
        go_on: continue the newest run of the stage that has these tags, if there is one. Without tags it is the newest
            of the same pipeline.
    """
    import mlflow  # noqa: F401  (here, since the thread must not import beside the stage)

    with timed(stage):
        sections = params.model_dump(mode="json", by_alias=True)
        facts, commit = provenance(), _commit()
        pipeline = item_id(commit, params.model_dump(mode="json", exclude={"compute", "mlflow", "serve", "flows"}))
        same = tags or {"pipeline_of_stage": pipeline}
        values = flatten({stage: sections.get(stage, {}), "video": sections["video"]})
        run = StageRun(Spool.new(stage), params.mlflow)
        run._add(
            "begin",
            stage=stage,
            time=int(time.time() * 1000),
            tags={"stage": stage, "profile": params.profile, "pipeline_of_stage": pipeline, **facts, **(tags or {})},
            params={name: str(value)[:LONGEST_PARAMETER] for name, value in values.items()},
            pipeline={"pipeline": pipeline, "git_commit": commit, "profile": params.profile},
            same=dict(same),
            go_on=go_on,
        )
        if sets := data_sets(stage):
            run._add("inputs", data_sets=[each._asdict() for each in sets], context=stage)
        run.begin()
        try:
            with system_metrics(run.metrics, params.mlflow.system_metrics_seconds):
                yield run
        except BaseException as error:
            run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        run.end("FINISHED")


def provenance() -> dict[str, str]:
    """What code and data a run stands on: the git commit, whether its code was changed since, the hash of dvc.lock."""
    lock = Path("dvc.lock")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", *CODE],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "git_commit": _commit(),
        "git_dirty": "true" if changed.stdout.strip() else "false",
        "dvc_lock": content_hash(lock) if lock.exists() else "none",
    }


def _commit() -> str:
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return git.stdout.strip() if git.returncode == 0 else "none"

"""`dvc repro` as a Prefect task."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import psutil
from prefect import get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.tasks import Task

from models.estimators import Kind
from stages.params import Params

GPU_SLOT = "gpu"
_BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
_ALWAYS_ON_GPU = {"latents", "motion_controlnet", "camera_lora", "object_lora", "evaluate", "register"}
_ESTIMATORS: dict[str, Kind] = {"clips": "flow", "captions": "captions", "tracks": "tracks", "track_quality": "tracks"}
_LAST_LINES = 25
_SECONDS_TO_STOP = 20


class DvcError(RuntimeError):
    """`dvc repro` failed; the message ends with its last lines."""


class DvcBusy(DvcError):
    """Another process holds DVC's lock on the repository or on these outputs: worth another try."""


def _is_busy(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), DvcBusy)


@task(task_run_name="{stage}", retries=10, retry_delay_seconds=30, retry_condition_fn=_is_busy)
def repro(stage: str, params: Params, single_item: bool = False, force: bool = False) -> None:
    """Bring a stage up to date, inside a GPU slot if it computes on one.

    Args:
        single_item: this stage alone, with the inputs as they are.
        force: run it though nothing changed.

    Raises:
        DvcError: the stage failed.
    """
    options = ["--single-item"] * single_item + ["--force"] * force
    slot = concurrency(GPU_SLOT, strict=True) if needs_gpu(stage, params) else nullcontext()
    with slot:
        run_dvc("repro", *options, stage)


def needs_gpu(stage: str, params: Params) -> bool:
    """Whether a stage runs networks: always, or with the estimators of these parameters."""
    return stage in _ALWAYS_ON_GPU or (stage in _ESTIMATORS and params.is_neural(_ESTIMATORS[stage]))


def run_dvc(*arguments: str) -> None:
    """Run `dvc`, its lines in the flow run's log; if this process is told to stop, DVC and all it started stop first.

    Raises:
        DvcBusy: a lock is held by someone else.
        DvcError: any other failure.
    """
    logger, lines = get_run_logger(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "output.txt"  # a file: with a pipe whose reader dies, DVC does not write dvc.lock
        with path.open("wb") as output, path.open(encoding="utf-8", errors="replace") as reader:
            with _started([sys.executable, "-m", "dvc", *arguments], output) as process:
                while process.poll() is None:
                    time.sleep(0.2)
                    for line in _new_lines(reader):
                        logger.info(line)
                        lines.append(line)
            for line in _new_lines(reader):
                logger.info(line)
                lines.append(line)
    if process.returncode:
        text = "\n".join(lines)
        error = DvcBusy if _BUSY.search(text) else DvcError
        last = "\n".join(lines[-_LAST_LINES:])
        raise error(f"dvc {' '.join(arguments)} ended with exit code {process.returncode}:\n{last}")


@contextmanager
def _started(command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; leaving early ends the whole group."""
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            end_group(process)


def end_group(process: subprocess.Popen[bytes], seconds: float = _SECONDS_TO_STOP) -> None:
    """End a process that leads a session, and all that it started, also in other sessions: asked first, then killed."""
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(tree, seconds)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what had lost its parent
    process.wait()


def _new_lines(reader: IO[str]) -> Iterator[str]:
    """Whole lines written since the last call."""
    while True:
        position = reader.tell()
        line = reader.readline()
        if not line.endswith("\n"):
            reader.seek(position)
            return
        if line.strip():
            yield line.rstrip().rpartition("\r")[-1]

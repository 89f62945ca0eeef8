"""`dvc repro` as a Prefect task."""

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import slots
from flows.keeper import kept
from models.estimators import Kind
from stages.params import Params

_BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by|it runs already in this folder")
_OF_DVC = re.compile(r"^(ERROR: failed to reproduce|Running stage|Verifying|Stage '|Use `dvc |To track the changes|> )")
_ALWAYS_ON_GPU = {"latents", "motion_controlnet", "camera_lora", "object_lora", "evaluate", "register"}
_ESTIMATORS: dict[str, Kind] = {"clips": "flow", "captions": "captions", "tracks": "tracks", "track_quality": "tracks"}
_LAST_LINES = 25
BUSY_SECONDS = 10  # seconds; between two tries while somebody else holds DVC's lock


class DvcError(RuntimeError):
    """`dvc` failed; `lines` are what it printed."""

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = lines


class DvcBusy(DvcError):
    """Another process holds DVC's lock on the repository or on these outputs: worth another try."""


@task(task_run_name="{stage}")
def repro(stage: str, params: Params, single_item: bool = False, force: bool = False) -> State | None:
    """Bring a stage up to date, inside a GPU slot if it computes on one; wait while DVC is busy.

    Args:
        single_item: this stage alone, with the inputs as they are.
        force: run it though nothing changed.

    Returns:
        None, or the state Failed. Its message says stage, cause, last lines and remedy.
    """
    options = ["--single-item"] * single_item + ["--force"] * force
    deadline = time.monotonic() + 60 * params.flows.wait_minutes
    while True:
        try:
            with slots.gpu_slot() if needs_gpu(stage, params) else nullcontext() as lease:
                after = [sys.executable, "-P", slots.__file__, str(lease)] if lease else []
                run_dvc("repro", *options, stage, afterwards=after)
            return None
        except DvcBusy as error:
            if time.monotonic() >= deadline:
                return Failed(message=failure(stage, error.lines, "it was busy for flows.wait_minutes"))
            get_run_logger().info("DVC is busy; %s is tried again in %s s", stage, BUSY_SECONDS)
            time.sleep(BUSY_SECONDS)
        except DvcError as error:
            return Failed(message=failure(stage, error.lines, str(error)))
        except slots.NoSlots as error:
            return Failed(message=failure(stage, [], str(error)))


def failure(stage: str, lines: Sequence[str], why: str) -> str:
    """What a person is told about a stage that failed: stage, cause, remedy, last lines."""
    said = [line for line in lines if not _OF_DVC.match(line)]
    return "\n".join(
        [
            f"stage:  {stage}",
            f"cause:  {said[-1] if said else why}",
            f"remedy: mend the cause, then run the flow again or `dvc repro {stage}`; finished items are kept",
            f"last lines ({why}):",
            *(f"  {line}" for line in lines[-_LAST_LINES:]),
        ]
    )


def needs_gpu(stage: str, params: Params) -> bool:
    """Whether a stage runs networks: always, or with the estimators of these parameters."""
    return stage in _ALWAYS_ON_GPU or (stage in _ESTIMATORS and params.is_neural(_ESTIMATORS[stage]))


def run_dvc(*arguments: str, afterwards: Sequence[str] = ()) -> None:
    """Run `dvc`, its lines in the flow run's log. DVC and all it started end with this process, however it ends.

    Args:
        afterwards: a command that runs if this process is killed, once DVC has ended.

    Raises:
        DvcBusy: a lock is held by someone else.
        DvcError: any other failure.
    """
    logger, lines = get_run_logger(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "output.txt"  # a file: with a pipe whose reader dies, DVC does not write dvc.lock
        with path.open("wb") as output, path.open(encoding="utf-8", errors="replace") as reader:
            with kept([sys.executable, "-m", "dvc", *arguments], output, afterwards=afterwards) as process:
                while process.poll() is None:
                    time.sleep(0.2)
                    for line in _new_lines(reader):
                        logger.info(line)
                        lines.append(line)
            for line in _new_lines(reader):
                logger.info(line)
                lines.append(line)
    if process.returncode:
        error = DvcBusy if _BUSY.search("\n".join(lines)) else DvcError
        raise error(f"dvc {' '.join(arguments)} ended with exit code {process.returncode}", lines)


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

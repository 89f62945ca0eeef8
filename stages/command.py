"""The command line of the stages that run once per split: `python -m stages.clips --split mixed`.

No stage runs twice at once in a folder, or one run would delete what the other is writing.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import get_args

from filelock import FileLock, Timeout

from models.estimators import EstimatorUnavailable
from stages.contracts import ContractError
from stages.params import ParamsError, Split, load_params
from stages.storage import SourceError
from stages.tracking import timed

LOCKS = Path(".locks")


@contextmanager
def only_run(stage: str) -> Iterator[None]:
    """Hold the stage's lock; if another process has it, exit with one line and code 1. It ends with its process."""
    LOCKS.mkdir(exist_ok=True)
    try:
        lock = FileLock(LOCKS / f"{stage}.lock").acquire(blocking=False)
    except Timeout:
        sys.exit(f"{stage}: it runs already in this folder; wait until that run has ended, or stop it")
    with lock:
        yield


def run_split_stage(module: str) -> None:
    """Call `module.run(split, params)` with ./params.yaml; what a user can mend ends as one line and exit code 1.

    The module is imported by its name, so that workers in other processes find its functions.
    """
    stage = import_module(module)
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(stage.__doc__ or "").strip())
    parser.add_argument("--split", choices=get_args(Split), required=True)
    split = parser.parse_args().split
    name = f"{module.removeprefix('stages.')}@{split}"
    try:
        with only_run(name), timed(name):
            stage.run(split, load_params())
    except (ParamsError, ContractError, EstimatorUnavailable, SourceError) as error:
        sys.exit(f"{name}: {error}")

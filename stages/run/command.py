"""How a stage is started: `python -m stages.clips --split mixed`.

The argument names of a stage's `run` choose what it receives: `params` (always), `split` (for the stages that run once
for each split), `tracker` (an MLflow run).
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import get_args

from models.disk import disk_fault
from models.errors import UserError
from stages.params import Split, load_params
from stages.run.locks import only_run
from stages.run.memory import collect_garbage_rarely
from stages.run.mlflow_runs import stage_run
from stages.run.timing import timed


def run_stage(module: str) -> None:
    """Call `module.run` with ./params.yaml, holding the lock of the stage.

    The module is imported by its name, so that workers in other processes find its functions.
    """
    stage = import_module(module)
    collect_garbage_rarely()
    wanted = signature(stage.run).parameters
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=(stage.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if "split" in wanted:
        parser.add_argument("--split", choices=get_args(Split), required=True, help="the split to work on")
    given = vars(parser.parse_args())
    name = module.removeprefix("stages.") + (f"@{given['split']}" if given else "")
    with one_line_errors(name), only_run(name):
        params = load_params()
        if "tracker" not in wanted:
            with timed(name):
                stage.run(params=params, **given)
            return
        with stage_run(name, params) as tracker:
            stage.run(params=params, tracker=tracker, **given)


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Expected errors end as one line on stderr and exit code 1, not as a traceback."""
    try:
        yield
    except Exception as error:
        if fault := disk_fault(error):
            sys.exit(f"{name}: {fault}")
        if isinstance(error, UserError | OSError):
            sys.exit(f"{name}: {error}")
        raise

"""The command line of the stages that run once per split: `python -m stages.clips --split mixed`."""

import argparse
import sys
from importlib import import_module
from typing import get_args

from models.estimators import EstimatorUnavailable
from stages.contracts import ContractError
from stages.locks import only_run
from stages.params import ParamsError, Split, load_params
from stages.storage import SourceError
from stages.tracking import timed


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

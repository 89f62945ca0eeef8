"""How a training stage is started, on one process or several: `python -m stages.camera_lora`."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState

from stages.data.items import weight_files
from stages.params import ComputeParams, Params, ParamsError, load_params
from stages.run.command import one_line_errors
from stages.run.locks import only_run
from stages.run.mlflow_runs import SilentRun, stage_run
from stages.train.loop import CHECKPOINTS, Listener, division
from stages.train.stopping import run_and_pass_sigterm_on


def run_training_stage(stage: str, output: Path, run: Callable[[Params, Listener], None]) -> None:
    """Run a training stage, with an MLflow run that gets the curves and the hash of the weights.

    With several processes, each process calls this. Only the main process reports and writes. The process that
    launched them holds the lock of the stage.
    """
    launched = "LOCAL_RANK" in os.environ
    with one_line_errors(stage), nullcontext() if launched else only_run(stage):
        params = load_params()
        processes, settings = training_processes(params.compute), getattr(params, stage)
        if settings.source is None and not launched:
            division(settings, processes)  # a batch that cannot be divided is told once, before networks are loaded
        if processes > 1 and not launched:
            sys.exit(run_and_pass_sigterm_on(launch_command(stage, processes)))
        source = settings.source
        if not PartialState(cpu=not torch.cuda.is_available()).is_main_process:
            if source is None:
                run(params, SilentRun())
            return
        with stage_run(stage, params, go_on=(CHECKPOINTS / stage).is_dir()) as tracker:
            if source is None:
                run(params, tracker)
                for curve in sorted(output.glob("*.csv")):
                    tracker.artifact(curve)
            else:
                adopt(stage, Path(source), output)
            tracker.weights(output)


def training_processes(compute: ComputeParams) -> int:
    """The number of training processes: `compute.training_processes`, else one for each GPU, else one."""
    return compute.training_processes or max(1, torch.cuda.device_count())


def launch_command(stage: str, processes: int) -> list[str]:
    """The command that runs a training stage on several processes of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, "-m", f"stages.{stage}"]


def adopt(stage: str, source: Path, output: Path) -> None:
    """Copy weights and config of a folder instead of training. Raises ParamsError if it has no weights."""
    try:
        files = weight_files(source)
    except FileNotFoundError as error:
        raise ParamsError(f"params.yaml: {stage}.source: {error}") from None
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, output / path.name)

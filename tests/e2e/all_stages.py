"""Run every stage of dvc.yaml in its order, in this process: `python -m tests.e2e.all_stages`.

Each command is started as DVC starts it, from its own module with its own arguments. Only the imports of programs and
worker processes are not made anew, which would take longer than the stages of small networks.
"""

import multiprocessing
import runpy
import shlex
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import yaml


def commands(pipeline: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """The commands of all stages that are not frozen, one for each item of a matrix."""
    found: list[str] = []
    for stage in pipeline["stages"].values():
        body = stage.get("do", stage)
        if "matrix" in body:
            found += [body["cmd"].replace("${item.split}", split) for split in body["matrix"]["split"]]
        elif "foreach" in stage:
            section, key = stage["foreach"].strip("${}").split(".")
            found += [body["cmd"].replace("${key}", split) for split in params[section][key]]
        elif not body.get("frozen"):
            found.append(body["cmd"])
    return found


def run_all() -> None:
    """Run them; a stage that fails ends the program with its message."""
    files = ("dvc.yaml", "params.yaml")
    wanted = [shlex.split(line) for line in commands(*(yaml.safe_load(Path(n).read_text("utf-8")) for n in files))]
    multiprocessing.get_context("forkserver").set_forkserver_preload([module for _, _, module, *_ in wanted])
    forkserver.ensure_running()
    for python, option, module, *arguments in wanted:
        assert (python, option) == ("python", "-m"), module
        start = time.monotonic()
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__")
        print(f"{module} {' '.join(arguments)}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    run_all()

"""Run every stage of dvc.yaml in its order, in this process: `python -m tests.e2e.all_stages`.

Each command is started as DVC starts it, from its own module with its own arguments. Only the programs are not started
anew, which would take longer than the stages of small networks.
"""

import runpy
import shlex
import sys
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
    for command in commands(*(yaml.safe_load(Path(name).read_text(encoding="utf-8")) for name in files)):
        python, option, module, *sys.argv[1:] = shlex.split(command)
        assert (python, option) == ("python", "-m"), command
        runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    run_all()

"""The data sets that a stage reads, as dvc.lock records them. MLflow shows them as the inputs of the stage's run."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

DATA = "data/"  # where data sets lie; a stage's other dependencies are code and weights, which a run has as tags


class DataSet(NamedTuple):
    """digest: DVC's hash of file or folder. size: bytes. files: number of files."""

    path: str
    digest: str
    size: int
    files: int


def data_sets(stage: str) -> list[DataSet]:
    """The data sets below `data/` that dvc.yaml names for a stage such as `clips@mixed`, in its order.

    Those that no stage has made through DVC are left out.
    """
    name, _, split = stage.partition("@")
    planned, locked = planned_stages(), _stages("dvc.lock")
    made = {out["path"]: out for each in locked.values() for out in each.get("outs", [])}
    needed = [dep.replace("${item.split}", split) for dep in planned.get(name, {}).get("deps", [])]
    return [
        DataSet(path, made[path]["md5"], made[path]["size"], made[path].get("nfiles", 1))
        for path in needed
        if path.startswith(DATA) and path in made
    ]


def planned_stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name; none where the file is missing."""
    return _stages("dvc.yaml")


def _stages(file: str) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml or dvc.lock; none where the file is missing."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)).get("stages", {})

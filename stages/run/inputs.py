"""The inputs of a stage that other stages make, as dvc.yaml names them.

DVC makes them first. A stage that is started alone must find them: some readers would take the path of a missing folder
for the name of a repository, and ask the network for it.
"""

import re
from pathlib import Path

from models.errors import UserError
from stages.run.data_sets import planned_stages

TEMPLATE = re.compile(r"\$\{.*?\}")  # what DVC fills in, such as ${item.split}


class MissingInput(UserError):
    """A folder or file that a stage reads and another stage makes is not there."""


def check_inputs(stage: str) -> None:
    """Check the inputs of a stage such as `clips@mixed`; none are known where dvc.yaml is missing.

    Raises:
        MissingInput: one is not there; the message names the stage that makes it.
    """
    name, _, split = stage.partition("@")
    planned = {each: body.get("do", body) for each, body in planned_stages().items()}
    makers = {
        re.compile("[^/]+".join(re.escape(part) for part in TEMPLATE.split(_path(out)))): maker
        for maker, body in planned.items()
        if not body.get("frozen")
        for out in body.get("outs", [])
    }
    for dep in planned.get(name, {}).get("deps", []):
        path = dep.replace("${item.split}", split)
        made_by = [maker for pattern, maker in makers.items() if pattern.fullmatch(path)]
        if made_by and not Path(path).exists():
            raise MissingInput(f"{path}: not there; `dvc repro {stage}` makes it first, by the stage {made_by[0]}")


def _path(out: str | dict[str, object]) -> str:
    """The path of an output, which dvc.yaml may hold with options."""
    return out if isinstance(out, str) else next(iter(out))

"""Commands of `image-conductor` that work on a checkout of the project. Each is the `main` of a module of `stages`.

The module is named here and imported when its command is given, so that the model is used without the pipeline.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module

PROJECT_COMMANDS = {
    "explain": ("stages.registry.explain_video", "what a video was made from; make it again"),
    "export": ("stages.export", "hand the curated clips to others, as WebDataset, parquet or for `datasets`"),
    "release": ("stages.registry.release", "which version serves: back to the one before, or to any other"),
    "sync": ("stages.run.sync", "send to MLflow the runs that it could not take before"),
}


def add_project_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """List the commands in the help of `image-conductor`."""
    for name, (_, words) in PROJECT_COMMANDS.items():
        commands.add_parser(name, help=words)


def run_project_command(arguments: Sequence[str]) -> bool:
    """Run the command if it is one of these; whether it was. `arguments[0]` is its name, the rest its options."""
    if not arguments or arguments[0] not in PROJECT_COMMANDS:
        return False
    module, _ = PROJECT_COMMANDS[arguments[0]]
    import_module(module).main(arguments[1:])
    return True

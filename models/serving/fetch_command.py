"""The command `image-conductor fetch official | paper`."""

import argparse
from pathlib import Path

from models.errors import UserError

OUTPUTS = {"official": Path("official"), "paper": Path("weights")}


def add_fetch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command to the parser of `image-conductor`."""
    fetch = commands.add_parser("fetch", help="download the published weights that the paper builds on")
    fetch.set_defaults(run=fetch_weights)
    fetch.add_argument(
        "set", choices=sorted(OUTPUTS), help="the authors' model, or the parts that profiles/paper.yaml names"
    )
    fetch.add_argument(
        "--output", type=Path, help="folder; official: of the model (official), paper: of loose files (weights)"
    )
    fetch.add_argument("--config", type=Path, help="JSON with network sizes, where they are not SD 1.5's")


def fetch_weights(options: argparse.Namespace) -> None:
    """Show the licences, download, check; of the set `official` make a model that `generate` uses."""
    from models.origins.fetch import AUTHORS, REPOSITORIES, fetch_set, licences

    output = options.output or OUTPUTS[options.set]
    print(f"{licences(options.set)}\nBy using these weights you accept their licences.", flush=True)
    if options.set == "paper":
        fetch_set("paper", output)
        print(f"{output}: checked; profiles/paper.yaml uses it. Torch hub downloads CoTracker's code at the first use")
        return
    from models.origins.official import import_official

    record = output.with_name(f"{output.name}.fetched")
    places = fetch_set("official", record)
    if output.exists() and any(output.iterdir()):
        raise UserError(
            f"--output: {output} holds something; the downloads are checked, give a new folder for the model"
        )
    checkpoints = [places[AUTHORS.name] / name for name in AUTHORS.parts]
    base = places[REPOSITORIES["official"][1].name]
    import_official(checkpoints[0], checkpoints[1], checkpoints[2], base, options.config).save_pretrained(output)
    print(f"{output}: the authors' model; use it: image-conductor generate --model {output}")

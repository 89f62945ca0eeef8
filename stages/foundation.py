"""The frozen image-to-video base as one folder in diffusers' layout: `python -m stages.foundation`.

Copies `foundation.source`, or assembles the published parts that `foundation.base`, `.motion_adapter` and
`.image_controlnet` name. Records the sha256 of every weight file in `weights.json`.
"""

import json
import shutil
from pathlib import Path

from models.networks.foundation import SUBFOLDERS, Foundation, FoundationError
from models.networks.latent_space import FILE_NAME
from models.origins.hub import assemble_foundation
from stages.data.items import content_hash, write_atomically
from stages.data.paths import FOUNDATION
from stages.params import Params, ParamsError
from stages.run.command import run_stage


def run(params: Params) -> None:
    settings = params.foundation
    FOUNDATION.mkdir(parents=True, exist_ok=True)
    if settings.source is not None:
        copy_foundation(Path(settings.source), FOUNDATION)
    else:
        assert settings.base and settings.motion_adapter and settings.image_controlnet
        assemble_foundation(settings.base, settings.motion_adapter, settings.image_controlnet).save(FOUNDATION)
    files = sorted(FOUNDATION.rglob("*.safetensors"))
    weights = {path.relative_to(FOUNDATION).as_posix(): content_hash(path) for path in files}
    write_atomically(FOUNDATION / "weights.json", (json.dumps(weights, indent=2, sort_keys=True) + "\n").encode())


def copy_foundation(source: Path, output: Path) -> None:
    """Copy the parts of a foundation folder, after loading it once as a check.

    Raises:
        ParamsError: `source` is not a foundation.
    """
    try:
        Foundation.load(source)
    except FoundationError as error:
        raise ParamsError(f"params.yaml: foundation.source: {error}") from None
    for name in SUBFOLDERS:
        shutil.copytree(source / name, output / name, dirs_exist_ok=True)
    if (source / FILE_NAME).is_file():
        shutil.copy(source / FILE_NAME, output)


if __name__ == "__main__":
    run_stage("stages.foundation")

"""The frozen image-to-video base as one folder in diffusers' layout: `python -m stages.foundation`.

Copies `foundation.source`, or assembles the published parts that `foundation.base`, `.motion_adapter` and
`.image_controlnet` name. Records the sha256 of every weight file in `weights.json`.
"""

import json
import shutil
import sys
from pathlib import Path

from models.foundation import SUBFOLDERS, Foundation, FoundationError
from models.hub import assemble_foundation
from models.latent_space import FILE_NAME
from stages.items import content_hash
from stages.locks import only_run
from stages.params import ParamsError, load_params
from stages.tracking import timed

OUTPUT = Path("artifacts/foundation")


def main() -> None:
    try:
        settings = load_params().foundation
        OUTPUT.mkdir(parents=True, exist_ok=True)
        if settings.source is not None:
            copy_foundation(Path(settings.source), OUTPUT)
        else:
            assert settings.base and settings.motion_adapter and settings.image_controlnet
            assemble_foundation(settings.base, settings.motion_adapter, settings.image_controlnet).save(OUTPUT)
    except (FoundationError, ParamsError, OSError) as error:
        sys.exit(f"foundation: {error}")
    weights = {path.relative_to(OUTPUT).as_posix(): content_hash(path) for path in OUTPUT.rglob("*.safetensors")}
    (OUTPUT / "weights.json").write_text(json.dumps(weights, indent=2, sort_keys=True) + "\n")


def copy_foundation(source: Path, output: Path) -> None:
    """Copy the parts of a foundation folder, after loading it once as a check.

    Raises:
        FoundationError: `source` is not a foundation.
    """
    Foundation.load(source)
    for name in SUBFOLDERS:
        shutil.copytree(source / name, output / name, dirs_exist_ok=True)
    if (source / FILE_NAME).is_file():
        shutil.copy(source / FILE_NAME, output)


if __name__ == "__main__":
    with only_run("foundation"), timed("foundation"):
        main()

"""`model_index.json` and `pipeline.py` of a saved model: what diffusers looks for in a folder or on the hub.

diffusers downloads the folders that the index lists, and no other file. So the index repeats the settings and the
latent space. It takes only folders with weights of its own names, so on the hub a second copy of the LoRAs lies one
level deeper, in `loras/`. Classes of this project are named in small files of code, `pipeline.py` and one in the folder
of each network; they import this project, which must be installed.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers

from models.modes import LORAS
from models.networks.latent_space import LatentSpace
from models.sampling.settings import Settings

INDEX_FILE = "model_index.json"
CHECKPOINT_FILE, PERSONAL_FOLDER = "checkpoint.safetensors", "personal_loras"
FOLDERS_OF_LORAS = (*(f"{name}_lora" for name in LORAS), PERSONAL_FOLDER)
DOWNLOADED_LORAS = "loras"
CODE = {
    "pipeline": "from models.sampling.by_diffusers import PipelineOfDiffusers\n",
    "networks": "from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet\n",
    "codecs": "from models.networks.codec import LappedCodec, LinearCodec\n",
}
COMPONENTS = {
    "unet": ["networks", "MotionUNet"],
    "image_controlnet": ["networks", "ImageControlNet"],
    "motion_controlnet": ["networks", "MotionControlNet"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}


def write_index(folder: Path, settings: Settings) -> None:
    """Write the index and the files of code into the folder of a saved model, whose other files are there already."""
    components = dict(COMPONENTS)
    if (folder / "vae").is_dir():
        codec = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["_class_name"]
        components["vae"] = ["diffusers" if hasattr(diffusers, codec) else "codecs", codec]
    index: dict[str, Any] = {
        "_class_name": ["pipeline", "PipelineOfDiffusers"],
        "_diffusers_version": diffusers.__version__,
        **(present := {name: where for name, where in components.items() if (folder / name).is_dir()}),
        **({DOWNLOADED_LORAS: [None, None]} if (folder / DOWNLOADED_LORAS).is_dir() else {}),
        "facts": {
            "latent_space": asdict(LatentSpace.load(folder)),
            "settings": asdict(settings),
            "has_checkpoint": (folder / CHECKPOINT_FILE).is_file(),
        },
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / "pipeline.py").write_text(CODE["pipeline"], encoding="utf-8")
    for name, (module, _) in present.items():
        if module in CODE:
            (folder / name / f"{module}.py").write_text(CODE[module], encoding="utf-8")


def copy_loras_for_download(folder: Path) -> None:
    """Copy all LoRAs to where diffusers downloads them; for a folder that goes to the hub."""
    for name in FOLDERS_OF_LORAS:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, folder / DOWNLOADED_LORAS / name)

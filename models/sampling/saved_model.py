"""The folder of a saved model: a foundation's subfolders, `motion_controlnet/`, LoRAs and settings.

unet/ image_controlnet/ vae/ text_encoder/ tokenizer/ scheduler/ latent_space.json
motion_controlnet/ camera_lora/ object_lora/ image_conductor.json
checkpoint.safetensors personal_loras/<name>.safetensors         (community weights, if any)
model_index.json pipeline.py unet/networks.py ...                  (for diffusers, see `model_index`)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from models.errors import UserError
from models.lora.sets import load_lora, save_lora
from models.modes import LORAS
from models.networks.foundation import OPTIONAL_PARTS, Foundation
from models.networks.networks import MotionControlNet
from models.sampling.adapters import loaded_loras, without_loras
from models.sampling.lora_files import copy_as_safetensors
from models.sampling.model_index import PERSONAL_FOLDER, write_index
from models.sampling.settings import Settings

FORMAT = 1
SETTINGS_FILE = "image_conductor.json"


class SavedModelError(UserError):
    """A folder that is no saved model, or one of another format."""


class SavedModel(NamedTuple):
    """The parts of a saved model; the motion ControlNet carries the LoRAs that the folder has."""

    foundation: Foundation
    motion_controlnet: MotionControlNet
    settings: Settings


def read_model(folder: Path, dtype: torch.dtype) -> SavedModel:
    """Read a saved model without its community weights. VAE, text encoder and tokenizer may be absent.

    Raises:
        FoundationError: a subfolder of the foundation is missing.
        SavedModelError: `motion_controlnet/` is missing, or the settings are of another format.
    """
    foundation = Foundation.load(folder, dtype, optional=OPTIONAL_PARTS)
    if not (folder / "motion_controlnet").is_dir():
        raise SavedModelError(f"{folder}: no motion_controlnet; expected a folder that save_pretrained has written")
    settings = read_settings(folder)
    motion_controlnet = MotionControlNet.from_pretrained(folder / "motion_controlnet", torch_dtype=dtype)
    add_loras(motion_controlnet, folder)
    motion_controlnet.requires_grad_(False).eval()
    return SavedModel(foundation, motion_controlnet, settings)


def add_loras(motion_controlnet: MotionControlNet, folder: Path) -> None:
    """Load the LoRA sets that a saved model has, in the precision of the network."""
    dtype = motion_controlnet.dtype
    for name in LORAS:
        if (folder / f"{name}_lora").is_dir():
            load_lora(motion_controlnet, name, folder / f"{name}_lora")
    if dtype != torch.float32:
        motion_controlnet.to(dtype)


def write_model(folder: Path, model: SavedModel, personal_files: Mapping[str, Path]) -> None:
    """Write a saved model; `personal_files` are community LoRAs by name, which are copied."""
    foundation, motion_controlnet, settings = model
    bare = {"unet": without_loras(foundation.unet)}
    if foundation.text_encoder is not None:
        bare["text_encoder"] = without_loras(foundation.text_encoder)
    replace(foundation, **bare).save(folder)
    copy_personal_files(folder, personal_files)
    without_loras(motion_controlnet).save_pretrained(folder / "motion_controlnet")
    for name in loaded_loras(motion_controlnet):
        save_lora(motion_controlnet, name, folder / f"{name}_lora")
    write_settings(folder, settings)
    write_index(folder, settings)


def copy_personal_files(folder: Path, files: Mapping[str, Path]) -> None:
    """Copy community LoRAs, by name, to where `from_pretrained` finds them."""
    if files:
        (folder / PERSONAL_FOLDER).mkdir(exist_ok=True)
    for name, file in files.items():
        copy_as_safetensors(file, folder / PERSONAL_FOLDER / f"{name}.safetensors")


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the settings with the number of their format."""
    text = json.dumps({"format": FORMAT, **asdict(settings)}, indent=2)
    (folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def read_settings(folder: Path) -> Settings:
    """The settings of a saved model; the paper's where it has none. A file without a format number is format 0.

    Raises:
        SavedModelError: the file is damaged, of a newer format, or has an unknown key.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return Settings()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        number = found.pop("format", 0)
    except (ValueError, AttributeError) as error:
        raise SavedModelError(f"{path}: damaged: {error}; save the model again") from None
    if number not in range(FORMAT + 1):
        raise SavedModelError(
            f"{path}: format {number} is newer than this program's, {FORMAT}; update the program, or save the model "
            "again with this one"
        )
    if unknown := found.keys() - {each.name for each in fields(Settings)}:
        raise SavedModelError(f"{path}: unknown key {', '.join(sorted(unknown))}; remove it, or save the model again")
    return Settings(**found)

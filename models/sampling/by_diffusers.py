"""A saved model as diffusers loads it, from a folder or from the hub.

DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)

This project must be installed. See `models.sampling.model_index` for the two files that diffusers looks for.
"""

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from models.errors import UserError
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.sampling.model_index import CHECKPOINT_FILE, DOWNLOADED_LORAS
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.saved_model import add_loras
from models.sampling.settings import Settings


class IncompleteModel(UserError):
    """A model that diffusers cannot load whole."""


class PipelineOfDiffusers(ImageConductorPipeline):
    """What `DiffusionPipeline.from_pretrained` calls. The object is a plain `ImageConductorPipeline` in the end.

    Args:
        facts: `latent_space` and `settings`, fields of `LatentSpace` and `Settings`; `has_checkpoint`, whether the
            folder has a community checkpoint.

    Raises:
        IncompleteModel: it has one; diffusers would leave it out.
    """

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """Entries of the index without a warning: the arguments, and the folder that is only downloaded."""
        return ImageConductorPipeline._get_init_keys(input_class) | {DOWNLOADED_LORAS}

    def __init__(
        self,
        unet: MotionUNet,
        image_controlnet: ImageControlNet,
        motion_controlnet: MotionControlNet,
        scheduler: DDIMScheduler,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        facts: Any = None,
    ):
        if facts["has_checkpoint"]:
            raise IncompleteModel(
                f"{CHECKPOINT_FILE}: diffusers would leave this community checkpoint out; use "
                "ImageConductorPipeline.from_pretrained(folder)"
            )
        folder = Path(motion_controlnet.config["_name_or_path"]).parent
        loras = folder / DOWNLOADED_LORAS if (folder / DOWNLOADED_LORAS).is_dir() else folder
        add_loras(motion_controlnet, loras)
        super().__init__(
            unet,
            image_controlnet,
            motion_controlnet,
            scheduler,
            vae,
            text_encoder,
            tokenizer,
            LatentSpace(**facts["latent_space"]),
            Settings(**facts["settings"]),
        )
        networks = (part for part in (unet, image_controlnet, motion_controlnet, vae, text_encoder) if part is not None)
        for network in networks:
            network.requires_grad_(False).eval()
        self.__class__ = ImageConductorPipeline  # type: ignore[assignment]
        self.load_personal_loras(loras)

"""The paper's base from a hub or from folders: SD 1.5 + AnimateDiff v3 motion modules + RGB SparseCtrl (Sec 2.3)."""

from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionUNet


def assemble_foundation(base: str, motion_adapter: str, image_controlnet: str) -> Foundation:
    """Put the published parts together; each is a hub id or a local folder in diffusers' layout.

    Raises:
        OSError: a part is neither a folder nor reachable on the hub; the message is the hub client's.
    """
    unet = MotionUNet.from_unet2d(
        UNet2DConditionModel.from_pretrained(base, subfolder="unet"), MotionAdapter.from_pretrained(motion_adapter)
    )
    return Foundation(
        unet=unet,
        image_controlnet=ImageControlNet.from_pretrained(image_controlnet),
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae"),
        text_encoder=CLIPTextModel.from_pretrained(base, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(base, subfolder="tokenizer"),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="linear",
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
            timestep_spacing="leading",
        ),
        latent_space=LatentSpace(),
    )

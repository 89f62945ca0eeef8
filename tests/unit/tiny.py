"""A tiny model of the real classes: 24x16 px, 3 frames, latents 6x4, every parameter random."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn

from models.lora.sets import add_lora
from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet, condition_channels
from models.origins.pocket import pocket_text_encoder, pocket_tokenizer
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings

CHANNELS, FACTOR, WIDTH, HEIGHT, FRAMES, TEXT = 4, 4, 24, 16, 3, 16
SETTINGS = Settings(WIDTH, HEIGHT, FRAMES, fps=8, num_inference_steps=2, guidance_scale=1.0)


def pipeline(first_frame: bool = True, condition: tuple[str, ...] = ("flow", "first_frame_latents"), seed: int = 0):
    """A pipeline whose UNet sees the first frame beside the noise if asked to, and predicts residuals to it."""
    torch.manual_seed(seed)
    sizes = {
        "block_out_channels": (8, 8),
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "motion_norm_num_groups": 4,
        "cross_attention_dim": TEXT,
        "num_attention_heads": 2,
        "motion_num_attention_heads": 2,
    }
    unet = MotionUNet(
        **sizes,
        in_channels=CHANNELS * (2 if first_frame else 1),
        out_channels=CHANNELS,
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        use_motion_mid_block=False,
    )
    tokenizer = pocket_tokenizer()
    foundation = Foundation(
        unet=unet,
        image_controlnet=ImageControlNet(**sizes, in_channels=CHANNELS, conditioning_channels=CHANNELS),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(4, 4, 4),
            norm_num_groups=2,
            latent_channels=CHANNELS,
        ),
        text_encoder=pocket_text_encoder(tokenizer, TEXT),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(prediction_type="sample", clip_sample=False, timestep_spacing="trailing"),
        latent_space=LatentSpace(mean=0.1, std=1.5, first_frame_weight=1.0) if first_frame else LatentSpace(),
    )
    motion_controlnet = MotionControlNet(
        **sizes,
        in_channels=CHANNELS,
        conditioning_channels=condition_channels(list(condition), CHANNELS, FACTOR),
        concat_conditioning_mask=False,
        condition=condition,
        codec_factor=FACTOR,
        flow_scale=3.0,
    )
    for name in ("camera", "object"):
        add_lora(motion_controlnet, name, rank=2, seed=seed)
    for network in (*foundation.networks(), motion_controlnet):
        randomise(network)
    pipe = ImageConductorPipeline.assemble(foundation, motion_controlnet, SETTINGS)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def randomise(network: nn.Module) -> None:
    """Give every parameter a value, so that every connection counts."""
    for parameter in network.requires_grad_(False).eval().parameters():
        nn.init.normal_(parameter, std=0.2)


def noise(*batch: int, seed: int = 0) -> Tensor:
    shape = (*batch, CHANNELS, FRAMES, HEIGHT // FACTOR, WIDTH // FACTOR)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

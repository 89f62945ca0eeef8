"""DDIM for networks in training: a few steps, from noise to latents."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from models.denoising.conditions import motion_condition
from models.denoising.denoiser import predict, unwrapped
from models.denoising.strokes import Strokes
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet


@torch.no_grad()
def sample_plainly(
    foundation: Foundation,
    motion_controlnet: MotionControlNet,
    z_first: Tensor,
    text: Tensor,
    strokes: Strokes | None,
    noise: Tensor,
    steps: int,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """Sample a batch without guidance: VAE latents (B, C, T, h, w) in the VAE's scaled space.

    Args:
        z_first: (B, C, h, w) scaled VAE latents of the first frames.
        text: (B, L, D) embeddings.
        strokes: None leaves the motion ControlNet out.
        noise: (B, C, T, h, w).
        steps: of DDIM, from 1.
    """
    condition = None
    if strokes is not None:
        condition = motion_condition(unwrapped(motion_controlnet).config, foundation.vae, strokes, z_first)

    def prediction(x: Tensor, t: Tensor) -> Tensor:
        with autocast():
            return predict(foundation, motion_controlnet, x, t, text, z_first, condition).float()

    return run_ddim(foundation, prediction, z_first, noise, steps)


def run_ddim(
    foundation: Foundation, prediction: Callable[[Tensor, Tensor], Tensor], z_first: Tensor, noise: Tensor, steps: int
) -> Tensor:
    """VAE latents (B, C, T, h, w) of noise of that shape; z_first (B, C, h, w).

    Args:
        prediction: of noisy latents (B, C, T, h, w) at timesteps (B,), of the kind that the scheduler's config names.
        steps: from 1.
    """
    scheduler = DDIMScheduler.from_config(foundation.scheduler.config)
    scheduler.set_timesteps(steps, device=noise.device)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(prediction(x, t.expand(len(x))), t, x).prev_sample
    return foundation.latent_space.from_model(x, z_first)

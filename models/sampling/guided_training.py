"""Guided sampling of a network in training, so that validation measures what is sampled later (Sec 2.5)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from models.denoising.conditions import motion_condition
from models.denoising.denoiser import predict
from models.denoising.loss import TrainingBatch
from models.denoising.plain_sampler import run_ddim
from models.lora.sets import Switch
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from models.sampling.branches import Guidance


@torch.no_grad()
def sample_with_guidance(
    foundation: Foundation,
    motion_controlnet: MotionControlNet,
    switch: Switch,
    made_from: TrainingBatch,
    null: Tensor,
    guidance: Guidance,
    steps: int,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """Sample a batch by DDIM: VAE latents (B, C, T, h, w) in the VAE's scaled space.

    Args:
        switch: makes the network theta_0 or one of its LoRAs, for each branch of the guidance.
        made_from: of its latents the first frames alone are used; its noise is what sampling begins with.
        null: (1, L, D) embedding of the empty prompt.
        guidance: of mode `controlnet`, `camera` or `object`: all branches see all strokes.
        steps: of DDIM, from 1.
    """
    assert made_from.strokes is not None and guidance.mode in ("controlnet", "camera", "object")
    z_first = made_from.latents[:, :, 0]
    condition = motion_condition(motion_controlnet.config, foundation.vae, made_from.strokes, z_first)
    texts = {"text": made_from.text, "null": null.to(made_from.text).expand_as(made_from.text)}

    def prediction(x: Tensor, t: Tensor) -> Tensor:
        predictions = {}
        for branch in guidance.branches():
            switch(branch.lora)
            with autocast():
                made = predict(foundation, motion_controlnet, x, t, texts[branch.prompt], z_first, condition)
            predictions[branch] = made.float()
        return guidance.join(predictions)

    return run_ddim(foundation, prediction, z_first, made_from.noise, steps)

"""The sampling loop (Sec 2.5): from noise to latents, step by step."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from models.sampling.branches import Guidance
from models.sampling.predictions import BranchPredictions
from models.sampling.settings import SOLVERS, Settings


def make_scheduler(model_scheduler: DDIMScheduler, settings: Settings, device: torch.device) -> SchedulerMixin:
    """A new scheduler for one run, with the model's noise schedule and with its timesteps set."""
    scheduler = SOLVERS[settings.solver].from_config(model_scheduler.config)
    scheduler.set_timesteps(settings.num_inference_steps, device=device)
    return scheduler


def run_loop(
    predictions: BranchPredictions,
    guidance: Guidance,
    scheduler: SchedulerMixin,
    noises: Tensor,
    after_step: Callable[[Tensor], object],
) -> Tensor:
    """Turn noise (S, B, C, T, h, w) into the model's latents of that shape.

    `after_step` gets the estimate of these latents after each step. What it raises ends the sampling.
    """
    x = noises * scheduler.init_noise_sigma
    for step, t in enumerate(scheduler.timesteps):
        predicted = predictions(step, t, scheduler.scale_model_input(x, t))
        stepped = scheduler.step(guidance.join(predicted), t, x)
        x = stepped.prev_sample
        after_step(stepped.get("pred_original_sample", x))
    return x

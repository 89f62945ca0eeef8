"""The diffusion training objective (Eq. 1 and 3), as the foundation's own scheduler config defines it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional as F

from models.denoising.conditions import motion_condition
from models.denoising.denoiser import predict, unwrapped
from models.denoising.strokes import Strokes
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet


@dataclass(frozen=True)
class TrainingBatch:
    """The inputs of one training step.

    latents: (B, C, T, h, w) VAE latents in the VAE's scaled space. text: (B, L, D) embeddings. strokes: None leaves the
    motion ControlNet out. noise: as `latents`, from N(0, 1). u: (B,) uniform in 0..1, which the timesteps are made of.
    """

    latents: Tensor
    text: Tensor
    strokes: Strokes | None
    noise: Tensor
    u: Tensor


def denoising_loss(
    foundation: Foundation,
    motion_controlnet: MotionControlNet,
    batch: TrainingBatch,
    timestep_power: float,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """Eq. 1 and Eq. 3: || eps - eps_theta(z_t, t, c_txt, c_img, c_trajs) ||^2, mean over all elements.

    The networks run within `autocast`. Their inputs and targets are computed in full precision.
    """
    scheduler, z_first = foundation.scheduler, batch.latents[:, :, 0]
    x0 = foundation.latent_space.to_model(batch.latents, z_first)
    timesteps = draw_timesteps(scheduler, batch.u, timestep_power)
    x_t = scheduler.add_noise(x0, batch.noise, timesteps)
    condition = None
    if batch.strokes is not None:
        condition = motion_condition(unwrapped(motion_controlnet).config, foundation.vae, batch.strokes, z_first)
    with autocast():
        prediction = predict(foundation, motion_controlnet, x_t, timesteps, batch.text, z_first, condition)
    return squared_error(prediction, training_target(scheduler, x0, batch.noise, timesteps))


def draw_timesteps(scheduler: DDIMScheduler, u: Tensor, power: float) -> Tensor:
    """(B,) training timesteps T u^power for u (B,) uniform in 0..1; power 1 is uniform, below 1 favours noisy steps."""
    count = scheduler.config.num_train_timesteps
    return (count * u**power).long().clamp(max=count - 1)


def training_target(scheduler: DDIMScheduler, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The target of the prediction: `epsilon`, `sample` or `v_prediction`, by the scheduler's `prediction_type`.

    Raises:
        ValueError: the scheduler names another prediction type.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return x0
    if kind == "v_prediction":
        return scheduler.get_velocity(x0, noise, timesteps)
    raise ValueError(f"scheduler_config.json: prediction_type {kind!r}; use 'epsilon', 'sample' or 'v_prediction'")


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements, in full precision."""
    return F.mse_loss(prediction.float(), target.float())

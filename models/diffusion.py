"""The diffusion training objective (Eq. 1 and 3), as the foundation's own scheduler config defines it."""

from torch import Tensor
from torch.nn import functional as F


def draw_timesteps(scheduler, u: Tensor, power: float) -> Tensor:
    """(B,) training timesteps T u^power for u (B,) uniform in 0..1; power 1 is uniform, below 1 favours noisy steps."""
    count = scheduler.config.num_train_timesteps
    return (count * u**power).long().clamp(max=count - 1)


def training_target(scheduler, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network is to predict: `epsilon`, `sample` or `v_prediction`, by the scheduler's `prediction_type`.

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


def diffusion_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """|| eps - eps_theta ||^2 of Eq. 1 and Eq. 3, mean over all elements."""
    return F.mse_loss(prediction.float(), target.float())

"""Frame size, number of frames and default sampling settings of a model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

from models.modes import SamplingMode, Solver
from models.sampling.branches import Guidance

SOLVERS: dict[Solver, type[SchedulerMixin]] = {"ddim": DDIMScheduler, "dpmsolver++": DPMSolverMultistepScheduler}


class SamplingOptions(TypedDict, total=False):
    """Settings that a call may change. What is left out is the model's own.

    None is the model's own, too, except for `trajectory_guidance_scale`: None there is plain classifier-free guidance.
    """

    num_inference_steps: int | None
    guidance_scale: float | None
    trajectory_guidance_scale: float | None
    guidance_rescale: float | None
    solver: Solver | None
    residual_interval: int | None
    personal_loras: Mapping[str, float] | None


@dataclass(frozen=True)
class Settings:
    """Frame size in pixels, frames, frames per second, and the sampling settings of a model.

    num_inference_steps: sampling steps, from 1.
    guidance_scale: l_cfg of classifier-free guidance, from 1; 1 switches it off.
    trajectory_guidance_scale: l_trajs of Eq. 5 in object mode, l_obj in mode `both`; None is plain guidance.
    guidance_rescale: 0 to 1, how far the contrast of a video without guidance is restored; the paper has 0.
    solver: `ddim` (the paper) or `dpmsolver++`.
    residual_interval: recompute the ControlNet residuals every N steps; more than 1 is an approximation.
    personal_loras: weights of community LoRAs, by name.
    """

    width: int = 384
    height: int = 256
    frames: int = 16
    fps: int = 8
    num_inference_steps: int = 25
    guidance_scale: float = 8.5
    trajectory_guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    solver: Solver = "ddim"
    residual_interval: int = 1
    personal_loras: Mapping[str, float] = field(default_factory=dict)

    def changed(self, options: SamplingOptions) -> "Settings":
        """These settings, replaced by those of a call where it has some.

        Raises:
            TypeError: an option is unknown.
            ValueError: a setting is out of range; the message names it.
        """
        if unknown := options.keys() - SamplingOptions.__annotations__.keys():
            raise TypeError(f"unexpected argument {', '.join(sorted(unknown))}")
        given: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None or name == "trajectory_guidance_scale"
        }
        settings = replace(self, **given)
        for name in ("num_inference_steps", "residual_interval"):
            if getattr(settings, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(settings, name)}")
        if not 1 <= settings.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale: must be a number from 1 up, got {settings.guidance_scale}")
        if not 0 <= settings.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale: must be within 0 and 1, got {settings.guidance_rescale}")
        scale = settings.trajectory_guidance_scale
        if scale is not None and not math.isfinite(scale):
            raise ValueError(f"trajectory_guidance_scale: must be a finite number, got {scale}")
        if settings.solver not in SOLVERS:
            raise ValueError(f"solver: {settings.solver!r} is unknown; use {', '.join(SOLVERS)}")
        return settings

    def guidance(self, mode: SamplingMode) -> Guidance:
        """How the predictions of one step are joined in a mode. Raises ValueError for an unknown mode."""
        return Guidance(mode, self.guidance_scale, self.trajectory_guidance_scale, self.guidance_rescale)

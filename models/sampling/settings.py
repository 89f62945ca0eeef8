"""Frame size, number of frames and default sampling settings of a model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

from models.modes import SamplingMode, Solver
from models.sampling.branches import Guidance

MAX_CONTROL_SCALE = 10.0
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
    controlnet_conditioning_scale: float | None
    control_guidance_start: float | None
    control_guidance_end: float | None
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
    controlnet_conditioning_scale: from 0, factor of what the motion ControlNet adds to the UNet; 1 is the paper's.
    control_guidance_start, control_guidance_end: shares of the steps, 0 to 1, between which it adds anything.
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
    controlnet_conditioning_scale: float = 1.0
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0
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
        if not 0 <= settings.controlnet_conditioning_scale <= MAX_CONTROL_SCALE:
            raise ValueError(
                f"controlnet_conditioning_scale: must be within 0 and {MAX_CONTROL_SCALE}, "
                f"got {settings.controlnet_conditioning_scale}"
            )
        start, end = settings.control_guidance_start, settings.control_guidance_end
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"control_guidance_start, control_guidance_end: must rise and be within 0 and 1, got {start} and {end}"
            )
        if settings.controlnet_conditioning_scale and not any(settings.control_scales()):
            raise ValueError(
                f"control_guidance_start, control_guidance_end: no whole step of {settings.num_inference_steps} lies "
                f"between {start} and {end}"
            )
        scale = settings.trajectory_guidance_scale
        if scale is not None and not math.isfinite(scale):
            raise ValueError(f"trajectory_guidance_scale: must be a finite number, got {scale}")
        if settings.solver not in SOLVERS:
            raise ValueError(f"solver: {settings.solver!r} is unknown; use {', '.join(SOLVERS)}")
        return settings

    def control_scales(self) -> list[float]:
        """The factor of the motion ControlNet's residuals at each sampling step.

        As in diffusers' pipelines: a step counts if the whole of it lies between start and end.
        """
        steps = self.num_inference_steps
        inside = [
            self.control_guidance_start <= step / steps and (step + 1) / steps <= self.control_guidance_end
            for step in range(steps)
        ]
        return [self.controlnet_conditioning_scale if each else 0.0 for each in inside]

    def guidance(self, mode: SamplingMode) -> Guidance:
        """How the predictions of one step are joined in a mode. Raises ValueError for an unknown mode."""
        return Guidance(mode, self.guidance_scale, self.trajectory_guidance_scale, self.guidance_rescale)

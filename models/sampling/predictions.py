"""One sampling step for all guidance branches and all noises, with nothing computed twice (Sec 2.5).

The ControlNets do not see the noisy latents. Their residuals are therefore computed once for each timestep and used for
all noises. All branches with one text share the residuals of the image ControlNet. Only `residual_interval` and the
cache keep residuals beyond a step.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.denoising import denoiser
from models.denoising.denoiser import Residuals
from models.modes import Lora
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.sampling.branches import Branch
from models.sampling.inputs import Inputs


class ImageResidualCache:
    """The image ControlNet's residuals of the last pictures and texts, for each timestep: other strokes reuse them."""

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._residuals: dict[tuple[int, str], Residuals] = {}

    def begin(self, inputs: Sequence[Tensor]) -> None:
        """Empty the cache if the inputs, all that residuals depend on beside the timestep, have changed."""
        same = len(inputs) == len(self._inputs) and all(
            a.device == b.device and torch.equal(a, b) for a, b in zip(inputs, self._inputs, strict=True)
        )
        if not same:
            self._inputs = list(inputs)
            self.clear()

    def get(self, timestep: int, text: str, make: Callable[[], Residuals]) -> Residuals:
        """The residuals of a timestep and text; computed if they are not in the cache."""
        if (timestep, text) not in self._residuals:
            self._residuals[timestep, text] = make()
        return self._residuals[timestep, text]

    def clear(self) -> None:
        self._residuals.clear()


class BranchPredictions:
    """Predictions of all branches, step by step.

    Args:
        unet, image_controlnet, motion_controlnet: the networks.
        switch: makes the motion ControlNet theta_0 or one of its LoRAs, see `adapters.fused_loras`.
        groups: branches that run as one batch; those of a group share LoRA and strokes.
        control_scales: factor of the motion ControlNet's residuals at each step; at 0 the network is not run.
        residual_interval: recompute the ControlNet residuals every N steps and reuse them in between. They are also
            recomputed where the factor changes.
        cache: keeps image residuals beyond the step.
    """

    def __init__(
        self,
        unet: MotionUNet,
        image_controlnet: ImageControlNet,
        motion_controlnet: MotionControlNet,
        switch: Callable[[Lora | None], None],
        inputs: Inputs,
        groups: Sequence[Sequence[Branch]],
        control_scales: Sequence[float],
        residual_interval: int = 1,
        cache: ImageResidualCache | None = None,
    ):
        self._unet, self._image_controlnet, self._motion_controlnet = unet, image_controlnet, motion_controlnet
        self._switch, self._inputs, self._groups, self._interval = switch, inputs, groups, residual_interval
        self._scales = control_scales
        self._image, self._image_stays = cache or ImageResidualCache(), cache is not None
        self._image.begin([inputs.image, inputs.image_mask, *inputs.texts.values()])
        self._residuals: dict[int, Residuals] = {}

    def __call__(self, step: int, t: Tensor, x_t: Tensor) -> dict[Branch, Tensor]:
        """Predictions (S, B, C, T, h, w) of each branch for noisy latents of that shape, at timestep t ()."""
        predictions: dict[Branch, Tensor] = {}
        scale = self._scales[step]
        fresh = step % self._interval == 0 or scale != self._scales[step - 1]
        for number, group in enumerate(self._groups):
            if fresh:
                self._residuals[number] = self._make_residuals(t, group, scale)
            rows, inputs = len(group), self._inputs
            text = torch.cat([inputs.texts[branch.prompt] for branch in group])
            first = inputs.first.repeat(rows, 1, 1, 1)
            made = torch.stack(
                [
                    denoiser.denoise(
                        self._unet,
                        each.repeat(rows, 1, 1, 1, 1),
                        t.expand(len(first)),
                        text,
                        first,
                        self._residuals[number],
                    )
                    for each in x_t
                ]
            )
            predictions |= zip(group, made.unflatten(1, (rows, -1)).unbind(1), strict=True)
            if self._interval == 1:
                self._residuals.clear()
        if not self._image_stays:
            self._image.clear()
        return predictions

    def _make_residuals(self, t: Tensor, group: Sequence[Branch], scale: float) -> Residuals:
        inputs = self._inputs
        residuals = denoiser.concatenated([self._image_residuals(t, branch.prompt) for branch in group])
        strokes, lora = group[0].strokes, group[0].lora
        if strokes is None or scale == 0:
            return residuals
        self._switch(lora)
        condition = inputs.conditions[strokes].repeat(len(group), 1, 1, 1, 1)
        text = torch.cat([inputs.texts[branch.prompt] for branch in group])
        motion = denoiser.motion_residuals(self._motion_controlnet, t.expand(len(condition)), text, condition)
        return residuals + motion.scaled(scale)

    def _image_residuals(self, t: Tensor, prompt: str) -> Residuals:
        inputs = self._inputs

        def make() -> Residuals:
            timesteps, text = t.expand(len(inputs.first)), inputs.texts[prompt]
            return denoiser.image_residuals(self._image_controlnet, timesteps, text, inputs.image, inputs.image_mask)

        return self._image.get(int(t), prompt, make)

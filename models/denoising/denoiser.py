"""eps_theta(z_t, t, c_txt, c_img, c_trajs) of Eq. 1: the UNet with the residuals of both ControlNets.

`predict` is the whole of eps_theta. The sampler calls the parts of `predict`, because it reuses residuals.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.networks.foundation import Foundation
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet


class Residuals(NamedTuple):
    """What a ControlNet adds to the UNet: a tensor (B * T, C, h, w) per skip connection, one for the middle block."""

    down: Sequence[Tensor]
    mid: Tensor

    def __add__(self, other: "Residuals") -> "Residuals":  # type: ignore[override]
        return Residuals([a + b for a, b in zip(self.down, other.down, strict=True)], self.mid + other.mid)

    def scaled(self, factor: float) -> "Residuals":
        """These residuals times a number."""
        return self if factor == 1 else Residuals([factor * each for each in self.down], factor * self.mid)


def predict(
    foundation: Foundation,
    motion_controlnet: MotionControlNet,
    x_t: Tensor,
    timesteps: Tensor,
    text: Tensor,
    z_first: Tensor,
    condition: Tensor | None,
) -> Tensor:
    """eps_theta of Eq. 1 and 3: one prediction (B, C, T, h, w) of the kind that the scheduler's config names.

    Args:
        motion_controlnet: may be wrapped for training on several processes.
        x_t: noisy latents (B, C, T, h, w) of the diffusion model; timesteps: (B,).
        text: c_txt, (B, L, D). z_first: c_img, (B, C, h, w) scaled VAE latents of the first frame.
        condition: c_trajs, (B, C', T, h, w) from `motion_condition`; None leaves the motion ControlNet out.
    """
    frames = x_t.shape[2]
    text = repeat_per_frame(text, frames)
    image = first_frame_condition(z_first, frames)
    residuals = image_residuals(foundation.image_controlnet, timesteps, text, *image)
    if condition is not None:
        residuals += motion_residuals(motion_controlnet, timesteps, text, condition)
    return denoise(foundation.unet, x_t, timesteps, text, z_first, residuals)


def image_residuals(
    image_controlnet: ImageControlNet,
    timesteps: Tensor,
    text: Tensor,
    image_cond: Tensor,
    image_mask: Tensor,
) -> Residuals:
    """c_img. timesteps (B,), text (B * T, L, D), image_cond (B, C, T, h, w), image_mask (B, 1, T, h, w)."""
    down, mid = image_controlnet(
        _unseen_sample(image_controlnet, image_cond),
        timesteps,
        text,
        controlnet_cond=image_cond,
        conditioning_mask=image_mask,
        return_dict=False,
    )
    return Residuals(down, mid)


def motion_residuals(
    motion_controlnet: MotionControlNet, timesteps: Tensor, text: Tensor, condition: Tensor
) -> Residuals:
    """c_trajs. timesteps (B,), text (B * T, L, D), condition (B, C, T, h, w) from `models.denoising.conditions`."""
    down, mid = motion_controlnet(
        _unseen_sample(motion_controlnet, condition), timesteps, text, controlnet_cond=condition, return_dict=False
    )
    return Residuals(down, mid)


def concatenated(parts: Sequence[Residuals]) -> Residuals:
    """Join the residuals of several batches into those of one batch."""
    if len(parts) == 1:
        return parts[0]
    return Residuals(
        [torch.cat(skip) for skip in zip(*(part.down for part in parts), strict=True)],
        torch.cat([part.mid for part in parts]),
    )


def denoise(
    unet: MotionUNet, x_t: Tensor, timesteps: Tensor, text: Tensor, z_first: Tensor, residuals: Residuals
) -> Tensor:
    """One prediction (B, C, T, h, w) for noisy latents x_t (B, C, T, h, w); z_first (B, C, h, w)."""
    return unet(
        unet_input(unet, x_t, z_first),
        timesteps,
        text,
        down_block_additional_residuals=tuple(residuals.down),
        mid_block_additional_residual=residuals.mid,
    ).sample


def unet_input(unet: MotionUNet, x_t: Tensor, z_first: Tensor) -> Tensor:
    """Append as many first-frame channels as the UNet was built for: none for SD 1.5, all of them for pocket."""
    extra = unet.config.in_channels - x_t.shape[1]
    frames = z_first[:, :extra, None].expand(-1, -1, x_t.shape[2], -1, -1)
    return torch.cat([x_t, frames.to(x_t.dtype)], dim=1)


def first_frame_condition(z_first: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Image condition (B, C, T, h, w) and mask (B, 1, T, h, w): the first frame's latents, then zeros (Sec 2.3)."""
    return image_condition(z_first[:, :, None], (0,), frames)


def image_condition(latents: Tensor, at: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
    """Image condition (B, C, T, h, w) and mask (B, 1, T, h, w): latents (B, C, K, h, w) at K frames, zeros elsewhere.

    Raises:
        ValueError: the frame numbers do not rise from 0 within the video, or their number is not K.
    """
    if list(at) != sorted(set(at)) or not at or at[0] != 0 or at[-1] >= frames or len(at) != latents.shape[2]:
        raise ValueError(
            f"image_frames: {latents.shape[2]} rising numbers from 0, below {frames}, are needed; got {list(at)}"
        )
    b, channels, _, h, w = latents.shape
    condition = latents.new_zeros(b, channels, frames, h, w)
    condition[:, :, list(at)] = latents
    mask = torch.zeros_like(condition[:, :1])
    mask[:, :, list(at)] = 1
    return condition, mask


def repeat_per_frame(text: Tensor, frames: int) -> Tensor:
    """(B, L, D) text embeddings to (B * T, L, D)."""
    return text.repeat_interleave(frames, dim=0)


def _unseen_sample(network: ImageControlNet | MotionControlNet, condition: Tensor) -> Tensor:
    """A stand-in for the noisy latents. These ControlNets multiply them by zero, so only the shape counts."""
    b, _, t, h, w = condition.shape
    return condition.new_zeros(b, unwrapped(network).config.in_channels, t, h, w)


def unwrapped(network: Any) -> Any:
    """The network without the wrapper that training on several processes puts around it."""
    return getattr(network, "module", network)

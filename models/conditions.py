"""What the motion ControlNet is conditioned on: a list in its config.

- `flow`: the blurred flow map, times `flow_scale`, pixel-unshuffled to latent size (the paper; the authors' weights).
- `first_frame_latents`: the first frame's latent at each track's start, copied to where the track is in each frame,
  plus a mask channel. The flow map says how fast a place moves; this says what should be there (past the paper).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

COPY_SIGMA = 0.9  # of the Gaussian that spreads a copied latent, in latent pixels


def motion_condition(
    config: Mapping[str, Any], flow_maps: Tensor, tracks: Tensor, visibility: Tensor, first_latents: Tensor
) -> Tensor:
    """Condition (B, C, T, h, w) of the motion ControlNet.

    Args:
        config: the network's config: `condition`, `flow_scale`, `codec_factor`.
        flow_maps: (B, 2, T, H, W) blurred, pixels per frame.
        tracks, visibility: (B, T, N, 2) in pixels and (B, T, N), the tracks that the flow maps were made of.
        first_latents: (B, C, h, w) VAE latents of the first frame, in the VAE's scaled space.
    """
    parts = {
        "flow": lambda: unshuffled_flow(flow_maps, config["flow_scale"], config["codec_factor"]),
        "first_frame_latents": lambda: copied_latents(tracks, visibility, first_latents, config["codec_factor"]),
    }
    return torch.cat([parts[name]() for name in config["condition"]], dim=1)


def unshuffled_flow(flow_maps: Tensor, scale: float, factor: int) -> Tensor:
    """(B, 2, T, H, W) to (B, 2 f^2, T, H / f, W / f)."""
    frames = F.pixel_unshuffle(flow_maps.transpose(1, 2), factor)
    return frames.transpose(1, 2) * scale


def copied_latents(tracks: Tensor, visibility: Tensor, first_latents: Tensor, factor: int) -> Tensor:
    """(B, C + 1, T, h, w): latents carried along the tracks, weighted by Gaussians; last channel: their coverage."""
    b, t, n, _ = tracks.shape
    channels, h, w = first_latents.shape[1:]
    if n == 0:
        return first_latents.new_zeros(b, channels + 1, t, h, w)
    position = (tracks + 0.5) / factor - 0.5
    size = torch.tensor([w, h], device=tracks.device)
    start = (2 * position[:, 0] + 1) / size - 1
    values = F.grid_sample(first_latents, start[:, None], align_corners=False, padding_mode="border")[:, :, 0]  # B C N
    x = torch.arange(w, device=tracks.device) - position[..., 0, None]
    y = torch.arange(h, device=tracks.device) - position[..., 1, None]
    weight_x, weight_y = (torch.exp(-(d**2) / (2 * COPY_SIGMA**2)) for d in (x, y))  # (B, T, N, w), (B, T, N, h)
    shown = (visibility & visibility[:, :1]).to(weight_x.dtype)
    weight = torch.einsum("btn,btnh,btnw->btnhw", shown, weight_y, weight_x).flatten(-2)
    total = weight.sum(2)  # (B, T, h * w)
    coverage = weight.amax(2)
    content = torch.einsum("bcn,btnp->bctp", values, weight) * (coverage / total.clamp(min=1e-6))[:, None]
    return torch.cat([content, coverage[:, None]], 1).view(b, channels + 1, t, h, w)

"""What the motion ControlNet is conditioned on: a list in its config.

- `flow`: the blurred flow map, times `flow_scale`, pixel-unshuffled to latent size (the paper; the authors' weights).
- `first_frame_latents`: how each frame's latents would differ from the first frame's, had every place moved with the
  stroke nearest to it, faded with the distance from that stroke, plus the fading as a mask channel. The flow map says
  how fast a place moves; this says what should be there (past the paper).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NEAREST_SIGMA = 1.0  # latent pixels over which one stroke's displacement passes into the next one's
REACH_SIGMA = 2.5  # latent pixels over which what a stroke carries fades


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
        "first_frame_latents": lambda: carried_latents(tracks, visibility, first_latents, config["codec_factor"]),
    }
    return torch.cat([parts[name]() for name in config["condition"]], dim=1)


def unshuffled_flow(flow_maps: Tensor, scale: float, factor: int) -> Tensor:
    """(B, 2, T, H, W) to (B, 2 f^2, T, H / f, W / f)."""
    frames = F.pixel_unshuffle(flow_maps.transpose(1, 2), factor)
    return frames.transpose(1, 2) * scale


def carried_latents(tracks: Tensor, visibility: Tensor, first_latents: Tensor, factor: int) -> Tensor:
    """(B, C + 1, T, h, w): what the tracks carry to each place, less what was there; last channel: their coverage.

    A place's displacement since frame 0 is that of the tracks around it, weighted by Gaussians of their distance; the
    first frame's latents are looked up where the place then came from.
    """
    b, t, n, _ = tracks.shape
    channels, h, w = first_latents.shape[1:]
    if n == 0:
        return first_latents.new_zeros(b, channels + 1, t, h, w)
    position = (tracks + 0.5) / factor - 0.5
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    place = torch.stack([x, y], -1).view(-1, 2).to(position)  # (h * w, 2)
    distance = (place[None, None, :, None] - position[:, :, None]).square().sum(-1)  # (B, T, h * w, N)
    shown = visibility & visibility[:, :1]
    distance = distance.masked_fill(~shown[:, :, None], torch.inf)
    coverage = torch.exp(-distance.amin(-1) / (2 * REACH_SIGMA**2))  # (B, T, h * w)
    near = torch.softmax(-distance.clamp(max=1e6) / (2 * NEAREST_SIGMA**2), -1)
    origin = place - near @ (position - position[:, :1])  # (B, T, h * w, 2)
    looked_up = (2 * origin + 1) / torch.tensor([w, h], device=tracks.device) - 1
    carried = F.grid_sample(first_latents, looked_up, align_corners=False, padding_mode="border")  # (B, C, T, h * w)
    change = (carried - first_latents.flatten(2)[:, :, None]) * coverage[:, None]
    return torch.cat([change, coverage[:, None]], 1).view(b, channels + 1, t, h, w)

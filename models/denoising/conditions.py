"""The condition of the motion ControlNet: a list of parts, kept in its config.

- `flow`: the blurred flow map, times `flow_scale`, pixel-unshuffled to latent size (the paper; the authors' weights).
- `first_frame_latents` (past the paper): the first frame is warped, every pixel moving with its nearest stroke. The
  channels are latents(warped) - latents(first), multiplied by a weight that falls with the distance from the stroke;
  the weight itself is one more channel. Pixels are warped and encoded again, because latents do not shift by parts of a
  patch. The flow map says how fast a place moves; this condition says what should be there.
- `first_frame_as_camera` (past the paper): the whole first frame is warped by the one similarity that fits all strokes
  best; the channels are latents(warped) - latents(first). With both conditions, "objects" or "camera" is a choice
  between two pictures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.denoising.flow_maps import flow_map
from models.denoising.strokes import Strokes
from models.networks.codec import Codec

NEAREST_SIGMA = 0.6  # latent pixels; standard deviation over which the strokes' displacements mix; more mixes further
REACH_SIGMA = 2.5  # latent pixels; standard deviation of the weight around a stroke; more moves a larger area
STIFFNESS = 1.0  # squared latent pixels; strokes must be further apart than this to determine zoom and roll
HIDDEN = 1e-4  # weight of an invisible track; above 0, so the camera stays in place when no track is visible


def motion_condition(config: Mapping[str, Any], vae: Codec | None, strokes: Strokes, first_latents: Tensor) -> Tensor:
    """Condition (B, C, T, h, w) of the motion ControlNet.

    Args:
        config: the network's config: `condition`, `flow_scale`, `codec_factor`.
        vae: the codec of `first_latents`; `flow` alone does not need it.
        first_latents: (B, C, h, w) VAE latents of the first frame, in the VAE's scaled space.
    """
    factor = config["codec_factor"]
    height, width = (side * factor for side in first_latents.shape[-2:])
    parts: dict[str, Callable[[], Tensor]] = {
        "flow": lambda: unshuffled_flow(flow_map(*strokes, height, width), config["flow_scale"], factor),
        "first_frame_latents": lambda: carried_latents(vae, *strokes, first_latents, factor),
        "first_frame_as_camera": lambda: camera_latents(vae, *strokes, first_latents, factor),
    }
    return torch.cat([parts[name]() for name in config["condition"]], dim=1)


def unshuffled_flow(flow_maps: Tensor, scale: float, factor: int) -> Tensor:
    """(B, 2, T, H, W) to (B, 2 f^2, T, H / f, W / f)."""
    frames = F.pixel_unshuffle(flow_maps.transpose(1, 2), factor)
    return frames.transpose(1, 2) * scale


@torch.no_grad()
def carried_latents(
    vae: Codec | None, tracks: Tensor, visibility: Tensor, first_latents: Tensor, factor: int
) -> Tensor:
    """(B, C + 1, T, h, w): latents of the warped first frame minus latents of the first frame, times a weight.

    The last channel is the weight: 1 on a stroke, 0 far from all. The displacement of a place since frame 0 is the mean
    displacement of the tracks around it, weighted by Gaussians of their distance.
    """
    b, t, n, _ = tracks.shape
    channels, h, w = first_latents.shape[1:]
    if n == 0:
        return first_latents.new_zeros(b, channels + 1, t, h, w)
    position = (tracks + 0.5) / factor - 0.5
    place = _grid(h, w).view(-1, 2).to(position)
    distance = (place[None, None, :, None] - position[:, :, None]).square().sum(-1)  # (B, T, h * w, N)
    shown = visibility & visibility[:, :1]
    distance = distance.masked_fill(~shown[:, :, None], torch.inf)
    coverage = torch.exp(-distance.amin(-1) / (2 * REACH_SIGMA**2)).view(b, 1, t, h, w)
    near = torch.softmax(-distance.clamp(max=1e6) / (2 * NEAREST_SIGMA**2), -1)
    displacement = (near @ (position - position[:, :1])).view(b * t, h, w, 2).movedim(-1, 1) * factor
    displacement = F.interpolate(displacement, (h * factor, w * factor), mode="bilinear", align_corners=False)
    origin = _grid(h * factor, w * factor).to(position) - displacement.movedim(1, -1)
    change = _change(vae, first_latents, origin.unflatten(0, (b, t)))
    return torch.cat([change * coverage, coverage], 1)


@torch.no_grad()
def camera_latents(vae: Codec | None, tracks: Tensor, visibility: Tensor, first_latents: Tensor, factor: int) -> Tensor:
    """(B, C, T, h, w): latents of the first frame as seen by the camera that moved all tracks, minus its latents.

    The camera is the similarity (shift, zoom, roll) from frame t back to frame 0 with the least squared error. One
    track determines only the shift. In complex numbers: z0 = a (z - mean z) + mean z0.
    """
    size = [s * factor for s in first_latents.shape[-2:]]
    z = torch.view_as_complex(tracks.contiguous())  # (B, T, N)
    weight = visibility[:, :1] * (visibility + HIDDEN)
    total = weight.sum(-1, keepdim=True).clamp(min=1e-12)
    now, start = ((weight * points).sum(-1, keepdim=True) / total for points in (z, z[:, :1]))
    stiffness = STIFFNESS * factor**2
    spread = (weight * (z - now).abs().square()).sum(-1, keepdim=True) / total
    turned = (weight * (z - now).conj() * (z[:, :1] - start)).sum(-1, keepdim=True) / total
    a = (turned + stiffness) / (spread + stiffness)
    place = torch.view_as_complex(_grid(*size).to(tracks)).view(-1)
    origin = torch.view_as_real(a * (place - now) + start).unflatten(2, size)
    return _change(vae, first_latents, origin)


def _change(vae: Codec | None, first_latents: Tensor, origin: Tensor) -> Tensor:
    """The change of the latents (B, C, T, h, w) if each pixel shows what was at `origin` (B, T, H, W, 2) in pixels."""
    if vae is None:
        raise ValueError("condition: first-frame conditions need the VAE, which this model does not have")
    b, t, height, width, _ = origin.shape
    scaled = (first_latents / vae.config.scaling_factor).to(vae.dtype)
    first = vae.decode(scaled, return_dict=False)[0].to(origin.dtype)
    looked_up = (2 * origin.flatten(0, 1) + 1) / torch.tensor([width, height], device=origin.device) - 1
    moved = F.grid_sample(first.repeat_interleave(t, 0), looked_up, align_corners=False, padding_mode="border")
    both = torch.cat([moved, first]).to(vae.dtype)  # the unmoved frame passes the codec too, so that rest is zero
    latents = vae.encode(both).latent_dist.mode().to(first_latents.dtype) * vae.config.scaling_factor
    return latents[: b * t].unflatten(0, (b, t)).transpose(1, 2) - latents[b * t :, :, None]


def _grid(height: int, width: int) -> Tensor:
    """(H, W, 2): each place's x and y."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], -1).float()

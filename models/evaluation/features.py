"""Features for Frechet distances, by name. A distance is called FID or FVD only with the official networks."""

import torch
from torch import Tensor


def codec_features(latents: Tensor) -> Tensor:
    """`codec`: what the VAE's latents (C, T, h, w) of a video say of its look and its motion, (2 C,).

    Mean over the video, and mean absolute change from frame to frame, per channel.
    """
    return torch.cat([latents.mean((1, 2, 3)), latents.diff(dim=1).abs().mean((1, 2, 3))])

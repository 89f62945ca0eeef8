"""Fitting the lapped codec: principal components of separate patches first, then gradient descent on whole pictures."""

import torch
from torch import Tensor

from models.networks.codec import LappedCodec, fit_linear_codec
from models.networks.seeded import seeded

BATCH = 16  # pictures in a step of the fit
LINEAR_RATE, REFINER_RATE = 5e-4, 2e-3
GRADIENT_WEIGHT = 0.5  # of the squared error of differences between neighbouring pixels: sharpness, no edges
AGAIN_WEIGHT = 2e-3  # of how much latents change when decoded and encoded again


def fit_lapped_codec(
    images: Tensor, patch: int, latent_channels: int, refiner_width: int, steps: int, seed: int
) -> LappedCodec:
    """Fit to images (N, 3, H, W) in -1..1: principal components first, then `steps` steps of gradient descent."""
    start = fit_linear_codec(images, patch, latent_channels)
    with seeded(seed):
        codec = LappedCodec(patch, 2 * patch, latent_channels, refiner_width)
    overlap = (codec.config.window - patch) // 2
    inner = slice(overlap, overlap + patch)
    with torch.no_grad():
        for mine, theirs in ((codec.encoder, start.encoder), (codec.decoder, start.decoder)):
            mine.weight.zero_()
            mine.weight[:, :, inner, inner] = theirs.weight
            mine.bias.copy_(theirs.bias)
        codec.refiner[-1].weight.zero_()
        codec.refiner[-1].bias.zero_()
    linear = [*codec.encoder.parameters(), *codec.decoder.parameters()]
    groups = [{"params": linear, "lr": LINEAR_RATE}, {"params": codec.refiner.parameters(), "lr": REFINER_RATE}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 0.02 + 2 * (1 - step / steps)))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = _loss(codec, images[torch.randint(len(images), (BATCH,), generator=generator)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        spread = torch.cat([codec.encode(part).latent_dist.mode() for part in images.split(100)]).std()
    codec.register_to_config(scaling_factor=float(1 / spread))
    return codec.eval()


def _loss(codec: LappedCodec, images: Tensor) -> Tensor:
    latents = codec.encode(images).latent_dist.mode()
    decoded = codec.decode(latents).sample
    error = decoded - images
    slopes = [
        (error[..., 1:] - error[..., :-1]).square().mean(),
        (error[..., 1:, :] - error[..., :-1, :]).square().mean(),
    ]
    kept = latents.detach()
    again = codec.encode(decoded).latent_dist.mode() - kept
    again = (again.square() / kept.square().mean((0, 2, 3), keepdim=True).clamp(min=1e-4)).mean()
    return error.square().mean() + GRADIENT_WEIGHT * sum(slopes) + AGAIN_WEIGHT * again

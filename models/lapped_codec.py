"""A patch codec without block edges: windows that overlap, and a small network that refines what they decode to.

It stands behind the interface of diffusers' `AutoencoderKL`, as `LinearCodec` does. Principal components of separate
patches leave steps at the patches' edges, since neighbours do not know of each other. Here each latent pixel reads a
window wider than its patch and writes one, as in a lapped transform; three small convolutions then sharpen the picture.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKLOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

from models.codec import fit_linear_codec

BATCH = 16  # pictures in a step of the fit
LINEAR_RATE, REFINER_RATE = 5e-4, 2e-3
GRADIENT_WEIGHT = 0.5  # of the squared error of differences between neighbouring pixels: sharpness, no edges
AGAIN_WEIGHT = 2e-3  # of how much latents change when decoded and encoded again


class LappedCodec(ModelMixin, ConfigMixin):
    """Images (B, 3, H, W) in -1..1, latents (B, C, H / patch, W / patch); H and W are multiples of `patch`.

    window: pixels that a latent pixel reads and writes; patch to 2 * patch, an even number more than patch.
    """

    @register_to_config
    def __init__(
        self,
        patch: int = 8,
        window: int = 16,
        latent_channels: int = 32,
        refiner_width: int = 24,
        scaling_factor: float = 1.0,
    ):
        super().__init__()
        self.encoder = nn.Conv2d(3, latent_channels, window, stride=patch)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, window, stride=patch)
        self.refiner = nn.Sequential(
            _convolution(3, refiner_width),
            nn.SiLU(),
            _convolution(refiner_width, refiner_width),
            nn.SiLU(),
            _convolution(refiner_width, 3),
        )

    @apply_forward_hook
    def encode(self, images: Tensor) -> AutoencoderKLOutput:
        """Its `latent_dist` has no spread: mode and sample are the same."""
        overlap = (self.config.window - self.config.patch) // 2
        mean = self.encoder(F.pad(images, (overlap,) * 4, mode="reflect"))
        moments = torch.cat([mean, torch.full_like(mean, -30.0)], 1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    @apply_forward_hook
    def decode(self, latents: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        patch = self.config.patch
        border = patch + (self.config.window - patch) // 2
        images = self.decoder(F.pad(latents, (1,) * 4, mode="replicate"))[..., border:-border, border:-border]
        images = images + self.refiner(images)
        return DecoderOutput(sample=images) if return_dict else (images,)


def fit_lapped_codec(
    images: Tensor, patch: int, latent_channels: int, refiner_width: int, steps: int, seed: int
) -> LappedCodec:
    """Fit to images (N, 3, H, W) in -1..1: principal components first, then `steps` steps of gradient descent."""
    start = fit_linear_codec(images, patch, latent_channels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
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
    slopes = [(error[..., 1:] - error[..., :-1]).square().mean(), (error[..., 1:, :] - error[..., :-1, :]).square().mean()]
    kept = latents.detach()
    again = codec.encode(decoded).latent_dist.mode() - kept
    again = (again.square() / kept.square().mean((0, 2, 3), keepdim=True).clamp(min=1e-4)).mean()
    return error.square().mean() + GRADIENT_WEIGHT * sum(slopes) + AGAIN_WEIGHT * again


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")

"""The pocket profile's codecs: patch codecs behind the interface of diffusers' `AutoencoderKL`."""

import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKLOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F


class LinearCodec(ModelMixin, ConfigMixin):
    """Principal components of `patch` x `patch` pixel patches; images (B, 3, H, W) in -1..1, latents (B, C, h, w).

    Components are half-whitened (divided by the fourth root of their variance), so that none dominates the others.
    """

    @register_to_config
    def __init__(self, patch: int = 8, latent_channels: int = 32, scaling_factor: float = 1.0):
        super().__init__()
        self.encoder = nn.Conv2d(3, latent_channels, patch, stride=patch)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch, stride=patch)

    @apply_forward_hook
    def encode(self, images: Tensor) -> AutoencoderKLOutput:
        """Encode images. The `latent_dist` of the result has no variance: its mode and its sample are the same."""
        mean = self.encoder(images)
        moments = torch.cat([mean, torch.full_like(mean, -30.0)], 1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    @apply_forward_hook
    def decode(self, latents: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        images = self.decoder(latents)
        return DecoderOutput(sample=images) if return_dict else (images,)


class LappedCodec(ModelMixin, ConfigMixin):
    """A patch codec without block edges; images (B, 3, H, W) in -1..1, latents (B, C, h, w).

    Principal components of separate patches leave steps at the patches' edges, since neighbours do not know of each
    other. Here each latent pixel reads and writes a window wider than its patch, as in a lapped transform; three small
    convolutions then sharpen the picture. `fit_lapped_codec` fits one.

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


Codec = AutoencoderKL | LinearCodec | LappedCodec


@torch.no_grad()
def fit_linear_codec(images: Tensor, patch: int, latent_channels: int) -> LinearCodec:
    """Closed-form fit to images (B, 3, H, W) in -1..1, whose size is a multiple of `patch`."""
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    centred = patches - mean
    variance, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    variance, vectors = variance.flip(0)[:latent_channels], vectors.flip(1)[:, :latent_channels]
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    whitening = variance.clamp(min=1e-8).pow(-0.25)
    codec = LinearCodec(patch, latent_channels)
    codec.encoder.weight.copy_((vectors * whitening).T.reshape(latent_channels, 3, patch, patch))
    codec.encoder.bias.copy_(-(mean @ (vectors * whitening)))
    codec.decoder.weight.copy_((vectors / whitening).T.reshape(latent_channels, 3, patch, patch))
    codec.decoder.bias.copy_(mean.reshape(3, -1).mean(1))
    codec.register_to_config(scaling_factor=float(1 / codec.encoder(images).std()))
    return codec


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")

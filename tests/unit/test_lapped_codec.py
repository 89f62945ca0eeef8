"""The lapped codec: no steps at the edges of patches, latents that survive decoding, and one file like any other."""

import pytest
import torch

from models.networks.codec import LappedCodec, fit_linear_codec
from models.networks.foundation import codec_factor, load_codec
from models.networks.lapped_codec import fit_lapped_codec

PATCH, CHANNELS = 8, 6


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Ramps and waves (64, 3, 32, 48), which separate patches of few components cannot join without steps."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1.5, 48), indexing="ij")
    k = 24 * torch.rand(64, 3, 2, generator=generator) - 12
    phase = 6 * torch.rand(64, 3, 1, 1, generator=generator)
    return (k[..., :1, None] * x + k[..., 1:, None] * y + phase).sin()


@pytest.fixture(scope="module")
def codec(images) -> LappedCodec:
    return fit_lapped_codec(images, PATCH, CHANNELS, 8, 150, 0)


def edge_steps(decoded: torch.Tensor, images: torch.Tensor) -> float:
    """Error of the difference across patch edges over that within patches."""
    error = ((decoded - images)[..., 1:] - (decoded - images)[..., :-1]).square().mean((0, 1, 2))
    at_edge = torch.arange(len(error)) % PATCH == PATCH - 1
    return float(error[at_edge].mean() / error[~at_edge].mean())


@torch.no_grad()
def test_it_is_better_than_separate_patches_and_has_weaker_edges(codec, images):
    linear = fit_linear_codec(images, PATCH, CHANNELS)
    ours, theirs = (c.decode(c.encode(images).latent_dist.mode()).sample for c in (codec, linear))
    assert (ours - images).square().mean() < (theirs - images).square().mean()
    assert edge_steps(ours, images) < 0.7 * edge_steps(theirs, images)


@torch.no_grad()
def test_sizes_scale_and_rest(codec, images):
    latents = codec.encode(images).latent_dist.mode()
    assert latents.shape == (64, CHANNELS, 4, 6)
    assert (latents * codec.config.scaling_factor).std() == pytest.approx(1, abs=0.05)
    again = codec.encode(codec.decode(latents).sample).latent_dist.mode()
    assert (again - latents).square().mean() < 0.02 * latents.square().mean()


@torch.no_grad()
def test_it_is_found_by_the_class_that_its_config_names(codec, images, tmp_path):
    codec.save_pretrained(tmp_path)
    loaded = load_codec(tmp_path)
    assert isinstance(loaded, LappedCodec) and codec_factor(loaded) == PATCH
    assert torch.equal(loaded.encode(images).latent_dist.mode(), codec.encode(images).latent_dist.mode())


def test_the_fit_is_a_function_of_the_seed(images):
    first, second = (fit_lapped_codec(images[:16], PATCH, 3, 4, 3, 5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

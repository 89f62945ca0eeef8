"""Untrained networks that are started as a warp predict the first frame as the strokes carry it."""

import pytest
import torch

from models.denoising.conditions import carried_latents, motion_condition
from models.denoising.denoiser import predict
from models.denoising.strokes import Strokes
from models.networks.codec import fit_linear_codec
from models.networks.foundation import Foundation, embed_text
from models.networks.latent_space import LatentSpace
from models.networks.networks import motion_controlnet_like
from models.origins.pocket import (
    pocket_image_controlnet,
    pocket_scheduler,
    pocket_text_encoder,
    pocket_tokenizer,
    pocket_unet,
    start_away_from_zero,
)
from models.origins.warp_start import start_as_warp

CHANNELS, FRAMES = 8, 4


def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = 2 * torch.rand(16, 3, 6, 8, generator=generator) - 1
    return torch.nn.functional.interpolate(small, (48, 64), mode="bicubic")


def networks(width: int, condition: list[str]):
    torch.manual_seed(0)
    tokenizer = pocket_tokenizer()
    unet = pocket_unet(CHANNELS, [width, width], 4, 2, 2, 16)
    image = pocket_image_controlnet(unet)
    motion = motion_controlnet_like(image, condition, 24.0, 8, 0)
    for network in (image, motion):
        start_away_from_zero(network)
    codec = fit_linear_codec(pictures(), 8, CHANNELS)
    text = pocket_text_encoder(tokenizer, 16)
    foundation = Foundation(unet, image, codec, text, tokenizer, pocket_scheduler(), LatentSpace(0.0, 0.8, 1.0))
    return foundation, motion


@torch.no_grad()
@pytest.mark.parametrize(
    "condition", [["flow", "first_frame_latents", "first_frame_as_camera"], ["first_frame_latents"]]
)
def test_the_prediction_is_what_the_strokes_carry(condition):
    foundation, motion = networks(16, condition)
    start_as_warp(foundation, motion)
    z_first = foundation.encode_images(pictures()[:2] / 2 + 0.5)
    tracks = torch.tensor([20.0, 20.0]) + torch.arange(FRAMES)[:, None] * torch.tensor([5.0, 2.0])
    strokes = Strokes.visible(tracks[None, :, None].expand(2, -1, -1, -1).contiguous())
    carried = carried_latents(foundation.vae, *strokes, z_first, 8)[:, :-1]
    wanted = carried / 0.8
    text = embed_text(foundation.tokenizer, foundation.text_encoder, ["a", "b"])
    noise = torch.randn(2, CHANNELS, FRAMES, 6, 8)
    condition = motion_condition(motion.config, foundation.vae, strokes, z_first)
    made = predict(foundation, motion, noise, torch.tensor([999, 500]), text, z_first, condition)
    assert (made - wanted).square().mean() < 0.05 * wanted.square().mean()


def test_what_cannot_carry_the_latents_is_refused():
    with pytest.raises(ValueError, match="cannot carry"):
        start_as_warp(*networks(4, ["flow", "first_frame_latents"]))
    with pytest.raises(ValueError, match="first_frame_latents"):
        start_as_warp(*networks(16, ["flow"]))

"""Flow maps, what is copied along strokes, latent space and training target, each against a closed form."""

import math

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import DDIMScheduler

from models.denoising.conditions import REACH_SIGMA, camera_latents, carried_latents, unshuffled_flow
from models.denoising.flow_maps import blur, flow_map, rasterise
from models.denoising.loss import draw_timesteps, training_target
from models.networks.codec import LinearCodec
from models.networks.latent_space import LatentSpace


def stroke(*points):
    tracks = torch.tensor(points, dtype=torch.float32)[None, :, None]
    return tracks, torch.ones(tracks.shape[:3], dtype=torch.bool)


def test_a_constant_translation_writes_its_step_at_each_start():
    flow = rasterise(*stroke((3, 4), (5, 5), (7, 6)), height=16, width=24)
    assert flow.shape == (1, 2, 3, 16, 24)
    assert flow[0, :, 1, 4, 3].tolist() == [2, 1] and flow[0, :, 2, 5, 5].tolist() == [2, 1]
    assert not flow[:, :, 0].any() and flow.abs().sum() == 6


def test_a_blurred_impulse_integrates_to_the_impulse():
    flow = flow_map(*stroke((48, 32), (51, 28)), height=64, width=96)
    assert flow[0, :, 1].sum((1, 2)).tolist() == pytest.approx([3, -4], rel=1e-5)
    assert flow[0, 0, 1].argmax() == 32 * 96 + 48


def test_the_last_track_on_a_pixel_wins_and_an_invisible_step_is_left_out():
    tracks = torch.tensor([[[[2.0, 2.0], [2.4, 2.9]], [[3.0, 2.0], [7.0, 2.0]]]])
    visibility = torch.ones(1, 2, 2, dtype=torch.bool)
    assert rasterise(tracks, visibility, 8, 8)[0, 0, 1, 2, 2] == pytest.approx(4.6)
    visibility[0, 1, 1] = False
    assert rasterise(tracks, visibility, 8, 8)[0, 0, 1, 2, 2] == 1


def test_blur_keeps_a_constant_map():
    assert torch.allclose(blur(torch.ones(1, 2, 3, 64, 96)), torch.ones(1), atol=1e-5)


def test_unshuffled_flow_keeps_every_number_times_the_scale():
    flow = torch.randn(2, 2, 3, 16, 24)
    condition = unshuffled_flow(flow, scale=3.0, factor=8)
    assert condition.shape == (2, 128, 3, 2, 3)
    assert condition.sum() == pytest.approx(3 * flow.sum().item(), rel=1e-3)


@pytest.fixture
def flat_codec():
    """A codec whose one latent channel is the mean of an 8x8 patch, all three colours alike."""
    codec = LinearCodec(patch=8, latent_channels=1)
    with torch.no_grad():
        codec.encoder.weight.fill_(1 / 192)
        codec.decoder.weight.fill_(1)
        codec.encoder.bias.zero_(), codec.decoder.bias.zero_()
    return codec


def test_the_codec_is_moved_where_it_is_needed_as_diffusers_are(flat_codec):
    calls = []

    class Moves(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            calls.append(type(module).__name__)
            return args, kwargs

    add_hook_to_module(flat_codec, Moves())
    latents = flat_codec.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mode()
    flat_codec.decode(latents)
    assert calls == ["LinearCodec"] * 2


def test_a_latent_is_carried_to_where_its_stroke_is(flat_codec):
    first = torch.zeros(1, 1, 4, 6)
    first[0, 0, 1, 1] = 1.0  # latent pixel (1, 1) is centred on pixel 11.5 at factor 8
    condition = carried_latents(flat_codec, *stroke((11.5, 11.5), (35.5, 19.5)), first, factor=8)
    assert condition.shape == (1, 2, 2, 4, 6)
    change, coverage = condition[0]
    assert change[0].abs().max() < 1e-5 and coverage[0, 1, 1] == pytest.approx(1)
    assert change[1, 2, 4] == pytest.approx(1, abs=1e-4) and coverage[1, 2, 4] == pytest.approx(1)
    assert change[1, 1, 1] == pytest.approx(-coverage[1, 1, 1].item(), abs=1e-4) and coverage[1, 1, 1] < 0.5


def test_half_a_patch_of_shift_carries_half_of_it(flat_codec):
    first = torch.zeros(1, 1, 4, 6)
    first[0, 0, 1, 1] = 1.0
    change = carried_latents(flat_codec, *stroke((11.5, 11.5), (15.5, 11.5)), first, factor=8)[0, 0, 1]
    coverage = math.exp(-0.25 / (2 * REACH_SIGMA**2))
    assert change[1, 1] == pytest.approx(-coverage / 2, abs=1e-3)
    assert change[1, 2] == pytest.approx(coverage / 2, abs=1e-3)


def test_every_place_moves_with_the_stroke_nearest_to_it(flat_codec):
    first = torch.arange(12.0).expand(1, 1, 8, 12).contiguous()  # a latent's value is its column
    tracks = torch.tensor([[[[11.5, 27.5], [83.5, 27.5]], [[19.5, 27.5], [83.5, 27.5]]]])
    change = carried_latents(flat_codec, tracks, torch.ones(1, 2, 2, dtype=torch.bool), first, factor=8)[0, 0, 1]
    assert change[3, 2] == pytest.approx(-1, abs=1e-3) and change[:, 9:].abs().max() < 1e-3


def test_one_stroke_taken_as_camera_moves_the_whole_frame(flat_codec):
    first = torch.arange(12.0).expand(1, 1, 8, 12).contiguous()
    change = camera_latents(flat_codec, *stroke((11.5, 27.5), (19.5, 27.5)), first, factor=8)[0, 0]
    assert change[0].abs().max() < 1e-4
    assert (change[1, :, 1:-1] + 1).abs().max() < 1e-3


def test_the_camera_is_the_similarity_that_the_strokes_obey(flat_codec):
    first = torch.zeros(1, 1, 8, 12)
    first[0, 0, 2, 2] = 1.0  # centred on pixel (19.5, 19.5)
    centre, a, shift = 47.5 + 31.5j, 1.1 * complex(math.cos(0.3), math.sin(0.3)), 4 - 6j
    z = torch.tensor([20 + 20j, 80 + 20j, 30 + 55j, 70 + 40j])
    tracks = torch.view_as_real(torch.stack([z, a * (z - centre) + centre + shift]))[None]
    change = camera_latents(flat_codec, tracks, torch.ones(1, 2, 4, dtype=torch.bool), first, factor=8)[0, 0, 1]
    landed = a * (19.5 + 19.5j - centre) + centre + shift
    bright = change.clamp(min=0)
    x, y = (
        (bright * place).sum() / bright.sum() * 8 + 3.5 for place in (torch.arange(12.0), torch.arange(8.0)[:, None])
    )
    assert (x - landed.real).abs() < 1 and (y - landed.imag).abs() < 1


def test_the_camera_rests_where_the_last_visible_track_left_it(flat_codec):
    tracks, visibility = stroke((11.5, 27.5), (19.5, 27.5), (19.5, 27.5))
    first = torch.randn(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    seen = camera_latents(flat_codec, tracks, visibility, first, factor=8)
    visibility[:, 2] = False
    assert torch.allclose(camera_latents(flat_codec, tracks, visibility, first, factor=8), seen, atol=1e-4)


def test_without_strokes_nothing_is_carried(flat_codec):
    tracks, visibility = stroke((11.5, 11.5), (35.5, 19.5))
    still = camera_latents(flat_codec, tracks, visibility & False, torch.randn(1, 1, 4, 6), factor=8)
    assert still.abs().max() < 1e-5
    assert not carried_latents(flat_codec, tracks, visibility & False, torch.randn(1, 1, 4, 6), factor=8).any()
    assert not flow_map(tracks, visibility & False, 32, 48).any()


def test_latent_space_there_and_back():
    space = LatentSpace(mean=0.3, std=2.0, first_frame_weight=1.0)
    z = torch.randn(2, 4, 3, 4, 6)
    assert torch.allclose(space.from_model(space.to_model(z, z[:, :, 0]), z[:, :, 0]), z, atol=1e-6)
    assert torch.allclose(space.to_model(z, z[:, :, 0])[:, :, 0], torch.tensor(-0.15))


def test_the_scheduler_config_decides_the_training_target():
    x0, noise, t = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2), torch.tensor([10, 900])
    target = {
        kind: training_target(DDIMScheduler(prediction_type=kind), x0, noise, t)
        for kind in ("epsilon", "sample", "v_prediction")
    }
    assert torch.equal(target["epsilon"], noise) and torch.equal(target["sample"], x0)
    alpha = DDIMScheduler().alphas_cumprod[t].view(2, 1, 1, 1, 1)
    assert torch.allclose(target["v_prediction"], alpha.sqrt() * noise - (1 - alpha).sqrt() * x0)


def test_a_power_below_one_favours_noisy_steps():
    u = torch.linspace(0, 1, 1001)
    even, noisy = (draw_timesteps(DDIMScheduler(), u, power) for power in (1.0, 0.35))
    assert even.min() == 0 and even.max() == 999 and even.float().mean() == pytest.approx(500, abs=2)
    assert noisy.float().mean() == pytest.approx(1000 / 1.35, abs=5)

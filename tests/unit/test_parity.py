"""The authors' public inference code, reproduced: networks, flow maps and sampled latents against its tensors."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.denoising import denoiser
from models.denoising.conditions import unshuffled_flow
from models.denoising.flow_maps import flow_map, rasterise
from models.sampling.adapters import use_lora
from models.sampling.pipeline import ImageConductorPipeline
from models.strokes.stroke import stroke_tracks
from models.strokes.trajectories import parse_trajectories
from tests.unit import golden

pytestmark = pytest.mark.skipif(not golden.FOLDER.is_dir(), reason=f"no golden tensors in {golden.FOLDER}")

LORAS = {"base": None, "omcm": "object", "cmcm": "camera"}
NETWORK_TOLERANCE, SAMPLE_TOLERANCE, FLOW_TOLERANCE = 1e-5, 1e-4, 1e-6


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float):
    assert ours.shape == theirs.shape
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= tolerance, f"off by {error:.2e} of the maximum"


def per_video(residual: torch.Tensor) -> torch.Tensor:
    """(B * T, C, h, w) to (B, C, T, h, w)."""
    return residual.unflatten(0, (-1, golden.config()["frames"])).transpose(1, 2)


@pytest.fixture
def call():
    """What the single calls of the networks have in common: timesteps (2,) and text (2 * T, L, D)."""
    inputs = golden.tensors("inputs")
    text = denoiser.repeat_per_frame(inputs["text_embeddings"], golden.config()["frames"])
    return {"timesteps": inputs["timestep"].expand(2), "text": text}


@pytest.fixture
def image(call):
    condition, mask = denoiser.first_frame_condition(
        golden.tensors("inputs")["image_latents"][:, :, 0].expand(2, -1, -1, -1), golden.config()["frames"]
    )
    with torch.no_grad():
        return denoiser.image_residuals(golden.image_controlnet(), **call, image_cond=condition, image_mask=mask)


def motion(call, name: str) -> denoiser.Residuals:
    network = golden.motion_controlnet()
    use_lora(network, LORAS[name])
    condition = unshuffled_flow(golden.tensors("inputs")["controlnet_flows"], scale=1.0, factor=8).expand(
        2, -1, -1, -1, -1
    )
    with torch.no_grad():
        return denoiser.motion_residuals(network, **call, condition=condition)


def test_the_unet_predicts_what_the_authors_predicts(call):
    with torch.no_grad():
        ours = golden.unet()(golden.tensors("inputs")["sample_b2"], call["timesteps"], call["text"]).sample
    assert_close(ours, golden.tensors("module_outputs")["unet_plain"], NETWORK_TOLERANCE)


def test_image_controlnet_residuals(image):
    expected = golden.tensors("module_outputs")
    assert_close(per_video(image.mid), expected["image.mid"], NETWORK_TOLERANCE)
    for i, residual in enumerate(image.down):
        assert_close(per_video(residual), expected[f"image.down.{i:02d}"], NETWORK_TOLERANCE)


@pytest.mark.parametrize("name", LORAS)
def test_motion_controlnet_residuals(call, name):
    expected, ours = golden.tensors("module_outputs"), motion(call, name)
    assert_close(per_video(ours.mid), expected[f"flow_{name}.mid"], NETWORK_TOLERANCE)
    for i, residual in enumerate(ours.down):
        if f"flow_{name}.down.{i:02d}" in expected:
            assert_close(per_video(residual), expected[f"flow_{name}.down.{i:02d}"], NETWORK_TOLERANCE)


@pytest.mark.parametrize("name", LORAS)
def test_the_unet_with_both_controlnets(call, image, name):
    inputs = golden.tensors("inputs")
    first = inputs["image_latents"][:, :, 0].expand(2, -1, -1, -1)
    with torch.no_grad():
        ours = denoiser.denoise(
            golden.unet(), inputs["sample_b2"], **call, z_first=first, residuals=image + motion(call, name)
        )
    expected = golden.tensors("module_outputs")[f"unet_with_image_and_flow_{name}"]
    assert_close(ours, expected, NETWORK_TOLERANCE)


@pytest.mark.parametrize(
    ("run", "mode", "guided"),
    [("object", "object", True), ("camera", "camera", True), ("object_nocfg", "object", False)],
)
def test_sampled_latents(run, mode, guided):
    inputs, config = golden.tensors("inputs"), golden.config()
    pipe = ImageConductorPipeline(
        golden.unet(), golden.image_controlnet(), golden.motion_controlnet(), golden.scheduler(), golden.vae()
    )
    ours = pipe(
        image_latents=inputs["image_latents"],
        prompt_embeds=inputs["text_embeddings"][1:],
        negative_prompt_embeds=inputs["text_embeddings"][:1],
        flow_maps=inputs["controlnet_flows"],
        mode=mode,
        num_inference_steps=config["steps"],
        guidance_scale=config["guidance_scale"] if guided else 1,
        latents=inputs["latents"],
        output_type="latent",
    ).frames
    expected = golden.tensors("sampling")
    assert_close(ours, expected[f"{run}.latents"], SAMPLE_TOLERANCE)
    if f"{run}.video" in expected:
        video = pipe.foundation.decode(ours).transpose(1, 2)
        torch.testing.assert_close(video, expected[f"{run}.video"].float(), atol=5e-4, rtol=0)


@pytest.mark.parametrize("as_the_authors", [True, False])
def test_two_images(as_the_authors):
    """Their loop overwrites its condition: from the second step on, frame k is conditioned on zeros. Ours keeps it;
    with the bug put in, all steps are theirs."""
    inputs, config = golden.tensors("inputs"), golden.config()
    last = config["two_images_index"][1]
    conditions, latents = [], []

    def image_hook(network, args, kwargs):
        if as_the_authors and len(conditions) >= 2:  # two branches a step
            kwargs["controlnet_cond"] = kwargs["controlnet_cond"].clone()
            kwargs["controlnet_cond"][:, :, last] = 0
        conditions.append(kwargs["controlnet_cond"][:, :, last])
        return args, kwargs

    pipe = ImageConductorPipeline(
        golden.unet(), golden.image_controlnet(), golden.motion_controlnet(), golden.scheduler(), golden.vae()
    )
    hooks = [
        pipe.image_controlnet.register_forward_pre_hook(image_hook, with_kwargs=True),
        pipe.unet.register_forward_pre_hook(lambda _, args: latents.append(args[0])),
    ]
    ours = pipe(
        image_latents=inputs["image_latents_two"],
        image_frames=config["two_images_index"],
        prompt_embeds=inputs["text_embeddings"][1:],
        negative_prompt_embeds=inputs["text_embeddings"][:1],
        flow_maps=inputs["controlnet_flows"],
        num_inference_steps=config["steps"],
        guidance_scale=config["guidance_scale"],
        latents=inputs["latents"],
        output_type="latent",
    ).frames
    for hook in hooks:
        hook.remove()
    theirs = golden.tensors("sampling")["object_two_images.latents_per_step"]
    per_step = [*latents[2::2], ours]
    assert_close(per_step[0], theirs[0], SAMPLE_TOLERANCE)
    for mine, expected in zip(per_step[1:], theirs[1:], strict=True):
        if as_the_authors:
            assert_close(mine, expected, SAMPLE_TOLERANCE)
        else:
            assert (mine - expected).abs().max() > 1e-3 * expected.abs().max()
    kept = [torch.equal(condition, inputs["image_latents_two"][:, :, 1]) for condition in conditions]
    assert all(kept) != as_the_authors


@pytest.mark.parametrize("name", golden.DRAWINGS)
def test_flow_maps_of_drawings(name):
    expected = load_file(golden.FOLDER / "trajs" / f"{name}.safetensors")
    drawn = parse_trajectories(golden.points(f"trajs/{name}"))
    tracks, visibility = (torch.from_numpy(a)[None] for a in stroke_tracks(drawn.strokes, drawn.canvas, (384, 256), 16))

    sparse = rasterise(tracks, visibility, 256, 384)[0]
    index = expected["raw_index"].long()
    theirs = torch.zeros_like(sparse)
    theirs[:, index[:, 0] + 1, index[:, 1], index[:, 2]] = expected["raw_value"].float().T
    torch.testing.assert_close(sparse, theirs, atol=1e-4, rtol=0)

    flow = flow_map(tracks, visibility, 256, 384)[0].permute(1, 2, 3, 0)
    torch.testing.assert_close(flow[:, ::8, ::8], expected["flow_sub8"], atol=FLOW_TOLERANCE, rtol=0)
    np.testing.assert_allclose(flow.double().sum((1, 2)), expected["frame_sum"], atol=1e-3)

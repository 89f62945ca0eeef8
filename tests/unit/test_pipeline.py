"""The sampler with tiny networks of the real classes."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from models.denoising.strokes import Strokes
from models.sampling.adapters import fused_loras, use_lora
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from tests.unit import tiny

STROKE = {"width": 24, "height": 16, "trajectories": [[[4, 4], [16, 8]]]}
BOTH = STROKE | {"camera_trajectories": [[[12, 12], [8, 12]]]}


@pytest.fixture(scope="module")
def pipe() -> ImageConductorPipeline:
    return tiny.pipeline()


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int) -> dict:
    """`count` different images, prompts and strokes."""
    random = generator(5)
    return {
        "first_latents": torch.randn(count, tiny.CHANNELS, 4, 6, generator=random),
        "prompt_embeds": torch.randn(count, 7, tiny.TEXT, generator=random),
        "negative_prompt_embeds": torch.randn(count, 7, tiny.TEXT, generator=random),
        "strokes": {"object": Strokes.visible(torch.rand(count, tiny.FRAMES, 2, 2, generator=random) * 14)},
    }


def one_of(items: dict, i: int) -> dict:
    """Item i of a batch, as a batch of one."""
    strokes = {kind: Strokes(*(part[i : i + 1] for part in each)) for kind, each in items["strokes"].items()}
    return {key: value[i : i + 1] for key, value in items.items() if key != "strokes"} | {"strokes": strokes}


def test_output_types(pipe, image):
    pictures = pipe(image, "a red circle", STROKE, generator=generator()).frames
    assert [len(video) for video in pictures] == [tiny.FRAMES]
    assert pictures[0][0].size == (tiny.WIDTH, tiny.HEIGHT)
    array = pipe(image, "a red circle", STROKE, generator=generator(), output_type="np").frames
    assert array.shape == (1, tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3)
    assert array.min() >= 0
    assert array.max() <= 1
    latents = pipe(image, "a red circle", STROKE, generator=generator(), output_type="latent").frames
    assert latents.shape == (1, tiny.CHANNELS, tiny.FRAMES, 4, 6)


@pytest.mark.parametrize("mode", ["camera", "object", "both"])
def test_a_seed_fixes_the_video_and_another_changes_it(pipe, image, mode):
    first, again, other = (
        pipe(image, "", BOTH, mode, generator=generator(seed), output_type="latent").frames for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(("mode", "scale"), [("camera", None), ("object", None), ("object", 2.0), ("both", None)])
def test_many_seeds_at_once_are_the_seeds_one_by_one(pipe, image, mode, scale):
    settings = {"mode": mode, "trajectory_guidance_scale": scale, "guidance_scale": 3.0, "output_type": "latent"}
    together = pipe(
        image, "a circle", BOTH, **settings, num_videos=3, generator=[generator(seed) for seed in range(3)]
    ).frames
    for seed in range(3):
        alone = pipe(image, "a circle", BOTH, **settings, generator=generator(seed)).frames
        torch.testing.assert_close(together[seed], alone[0])


def test_a_batch_is_its_items_one_by_one(pipe):
    items, latents = batch(3), tiny.noise(3)
    together = pipe.sample_latents(**items, latents=latents, guidance_scale=2.0)
    for i in range(3):
        alone = pipe.sample_latents(**one_of(items, i), latents=latents[i : i + 1], guidance_scale=2.0)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_residuals_are_made_once_for_each_timestep_however_many_seeds(pipe, image):
    calls: Counter[str] = Counter()
    networks = (pipe.image_controlnet, pipe.motion_controlnet, pipe.unet)
    hooks = [n.register_forward_hook(lambda network, *_: calls.update([type(network).__name__])) for n in networks]
    pipe(image, "", STROKE, trajectory_guidance_scale=1.1, num_inference_steps=2, num_videos=4, output_type="latent")
    for hook in hooks:
        hook.remove()
    assert calls == {"ImageControlNet": 2, "MotionControlNet": 2 * 2, "MotionUNet": 2 * 2 * 4}


def test_eq_5_with_weights_of_one_is_the_object_lora_itself(pipe):
    items, latents = batch(1), tiny.noise(1)
    plain = pipe.sample_latents(**items, mode="object", latents=latents, guidance_scale=1)
    eq_5 = pipe.sample_latents(**items, mode="object", latents=latents, guidance_scale=1, trajectory_guidance_scale=1)
    torch.testing.assert_close(eq_5, plain)


def test_eq_5_with_l_trajs_of_zero_is_the_network_without_lora(pipe):
    items, latents = batch(1), tiny.noise(1)
    base = pipe.sample_latents(**items, mode="controlnet", latents=latents, guidance_scale=4)
    eq_5 = pipe.sample_latents(**items, mode="object", latents=latents, guidance_scale=4, trajectory_guidance_scale=0)
    torch.testing.assert_close(eq_5, base)


def test_the_modes_differ(pipe):
    items, latents = batch(1), tiny.noise(1)
    videos = [
        pipe.sample_latents(**items, mode=mode, latents=latents) for mode in ("camera", "object", "controlnet", "none")
    ]
    for i, one in enumerate(videos):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in videos[:i])


def test_camera_mode_has_no_trajectory_guidance(pipe, image):
    plain, scaled = (
        pipe(
            image, "", STROKE, "camera", generator=generator(), output_type="latent", trajectory_guidance_scale=s
        ).frames
        for s in (None, 2.0)
    )
    assert torch.equal(plain, scaled)


def test_it_works_on_latents_and_embeddings_alone(image):
    bare = tiny.pipeline(first_frame=False, condition=("flow",))
    bare.vae = bare.text_encoder = bare.tokenizer = None
    one = {key: value for key, value in batch(1).items() if key.endswith("embeds")}
    inputs = one | {"image_latents": torch.ones(1, tiny.CHANNELS, 4, 6), "latents": tiny.noise(2)}
    flow_maps = torch.zeros(1, 2, tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH)
    still = bare(**inputs, flow_maps=flow_maps, output_type="latent", guidance_scale=2).frames
    assert still.shape == inputs["latents"].shape
    moved = bare(**inputs, trajectories=STROKE, output_type="latent", guidance_scale=2).frames
    assert not torch.allclose(still, moved)
    with pytest.raises(ValueError, match="output_type"):
        bare(**inputs, flow_maps=flow_maps)
    with pytest.raises(ValueError, match="image: this pipeline has no VAE"):
        bare(image, trajectories=STROKE, prompt_embeds=one["prompt_embeds"], output_type="latent")


def test_a_saved_model_is_the_same_model(pipe, image, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert {"motion_controlnet", "camera_lora", "object_lora", "unet"} <= {path.name for path in tmp_path.iterdir()}
    loaded = ImageConductorPipeline.from_pretrained(tmp_path)
    assert loaded.settings == tiny.SETTINGS
    assert loaded.latent_space == pipe.latent_space
    loaded.set_progress_bar_config(disable=True)
    for mode in ("camera", "object", "both"):
        videos = [p(image, "", BOTH, mode, generator=generator(), output_type="latent").frames for p in (pipe, loaded)]
        assert torch.equal(*videos)


def test_a_fused_lora_gives_the_result_of_one_beside_the_weights_and_leaves_no_trace(pipe):
    network = pipe.motion_controlnet
    before = {key: value.clone() for key, value in network.state_dict().items()}
    condition = torch.randn(1, network.config.conditioning_channels, tiny.FRAMES, 4, 6, generator=generator())
    text = torch.randn(tiny.FRAMES, 7, tiny.TEXT, generator=generator())

    def middle() -> torch.Tensor:
        sample = torch.zeros(1, tiny.CHANNELS, tiny.FRAMES, 4, 6)
        with torch.no_grad():
            return network(sample, torch.tensor([5]), text, controlnet_cond=condition, return_dict=False)[1]

    beside = {}
    for name in ("camera", "object", None):
        use_lora(network, name)
        beside[name] = middle()
    with fused_loras(network, ["camera", "object", None]) as switch:
        for name in ("object", None, "camera", "object"):
            switch(name)
            torch.testing.assert_close(middle(), beside[name])
    assert torch.equal(middle(), beside[None])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_batched_branches_are_the_branches_one_by_one(pipe):
    items, latents = batch(2), tiny.noise(2)
    for mode in ("camera", "object", "both"):
        strokes = items | {"strokes": items["strokes"] | {"camera": items["strokes"]["object"]}}
        arguments = {"mode": mode, "guidance_scale": 3.0, "trajectory_guidance_scale": 1.5, "latents": latents}
        one_by_one, batched = (
            pipe.sample_latents(**strokes, **arguments, batch_branches=together) for together in (False, True)
        )
        torch.testing.assert_close(batched, one_by_one)


def count_image_calls(pipe) -> tuple[Counter, object]:
    calls: Counter[str] = Counter()
    return calls, pipe.image_controlnet.register_forward_hook(lambda *_: calls.update(["image"]))


def test_other_strokes_on_the_last_picture_and_prompt_reuse_its_image_residuals(image):
    pipe = tiny.pipeline()
    other = STROKE | {"trajectories": [[[10, 10], [2, 2]]]}
    expected = pipe(image, "a", other, generator=generator(), output_type="latent").frames
    pipe.enable_image_cache()
    calls, hook = count_image_calls(pipe)
    pipe(image, "a", STROKE, output_type="latent")
    assert calls["image"] == 2
    assert torch.equal(pipe(image, "a", other, generator=generator(), output_type="latent").frames, expected)
    assert calls["image"] == 2
    pipe(image, "a circle", other, output_type="latent")
    assert calls["image"] == 4
    hook.remove()


def test_residuals_of_every_other_step_are_close_and_cost_half(pipe, image):
    arguments = {"num_inference_steps": 4, "output_type": "latent"}
    calls, hook = count_image_calls(pipe)
    exact, reused = (
        pipe(image, "", STROKE, **arguments, residual_interval=i, generator=generator()).frames for i in (1, 2)
    )
    hook.remove()
    assert calls["image"] == 4 + 2
    assert not torch.equal(exact, reused)


def test_another_solver_needs_fewer_steps_for_the_same_video(pipe, image):
    def video(solver: str, steps: int) -> torch.Tensor:
        arguments = {"num_inference_steps": steps, "solver": solver, "generator": generator()}
        return pipe(image, "", STROKE, **arguments, output_type="latent").frames

    truth = video("ddim", 200)
    ddim, better = ((video(solver, 20) - truth).abs().mean() for solver in ("ddim", "dpmsolver++"))
    assert better < ddim < truth.abs().mean()


def test_an_image_of_another_shape_is_cropped_and_the_strokes_with_it(pipe):
    tall = Image.new("RGB", (48, 64))
    result = pipe(tall, "", {"width": 48, "height": 64, "trajectories": [[[10, 32], [30, 32]]]}, output_type="latent")
    assert result.cropped == "32 pixels of the height"


def test_strokes_of_no_strength_change_nothing_and_stronger_ones_more(pipe, image):
    def latents(steps=4, **options):
        given = {"mode": "camera", "num_inference_steps": steps, "generator": torch.manual_seed(0), **options}
        return pipe(image, "", STROKE, output_type="latent", **given).frames

    off = latents(controlnet_conditioning_scale=0.0)
    assert torch.equal(off, latents(mode="object", controlnet_conditioning_scale=0.0))
    half, whole = ((latents(controlnet_conditioning_scale=scale) - off).abs().mean() for scale in (0.5, 1.0))
    assert 0 < half < whole
    assert torch.equal(latents(control_guidance_start=0.0, control_guidance_end=1.0), latents())
    early, late = latents(control_guidance_end=0.5), latents(control_guidance_start=0.5)
    assert not torch.equal(early, late) and not torch.equal(early, off) and not torch.equal(late, off)
    assert torch.equal(
        latents(residual_interval=4, control_guidance_end=0.5, steps=4),
        latents(residual_interval=2, control_guidance_end=0.5, steps=4),
    )


@pytest.mark.parametrize(
    ("start", "end", "scales"),
    [(0, 1, [2, 2, 2, 2]), (0, 0.5, [2, 2, 0, 0]), (0.3, 1, [0, 0, 2, 2]), (0.25, 0.74, [0, 2, 0, 0])],
)
def test_a_step_counts_if_the_whole_of_it_lies_between_start_and_end(start, end, scales):
    settings = Settings(
        num_inference_steps=4,
        controlnet_conditioning_scale=2,
        control_guidance_start=start,
        control_guidance_end=end,
    )
    assert settings.control_scales() == scales


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"controlnet_conditioning_scale": float("nan")}, "controlnet_conditioning_scale"),
        ({"control_guidance_start": 0.5, "control_guidance_end": 0.5}, "control_guidance_start"),
        ({"control_guidance_end": 0.1, "num_inference_steps": 2}, "no whole step of 2"),
        ({"mode": "zoom"}, "mode"),
        ({"output_type": "mp4"}, "output_type"),
        ({"num_videos": 0}, "num_videos"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"trajectory_guidance_scale": float("inf")}, "trajectory_guidance_scale"),
        ({"prompt": None}, "prompt or prompt_embeds"),
        ({"trajectories": None}, "trajectories or flow_maps"),
        ({"mode": "both"}, "camera_trajectories"),
        ({"num_frames": 99}, "num_frames"),
        ({"latents": torch.zeros(1, 4, 3, 9, 9)}, "latents"),
        ({"image_latents": torch.zeros(1, 4, 4, 6)}, "image or image_latents"),
        ({"residual_interval": 0}, "residual_interval"),
        ({"solver": "euler"}, "solver"),
        ({"image_frames": (0, 2)}, "image_frames"),
        ({"image_frames": (1,)}, "image_frames"),
    ],
)
def test_a_bad_argument_is_named(pipe, image, arguments, field):
    with pytest.raises(ValueError, match=field):
        pipe(**{"image": image, "prompt": "", "trajectories": STROKE} | arguments)


def test_a_mode_without_its_lora_says_so(image):
    pipe = tiny.pipeline()
    pipe.motion_controlnet.delete_adapters("object")
    assert pipe(image, "", STROKE, "camera", output_type="latent").frames.isfinite().all()
    with pytest.raises(ValueError, match="needs the LoRA object"):
        pipe(image, "", STROKE, "object")

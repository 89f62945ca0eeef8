"""Community files on a tiny base: read in their own layouts, they change the picture and leave the control."""

import re

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from models.denoising.strokes import Strokes
from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionUNet, motion_controlnet_like
from models.origins.pocket import pocket_scheduler, pocket_text_encoder, pocket_tokenizer
from models.sampling.inputs import fit_image
from models.sampling.personalisation import PersonalisationError, personal_loras
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from models.serving.cli import _lora_name, _weighted
from models.strokes.trajectories import parse_trajectories, stroke_tracks
from tests.unit import tiny

SD = {"block_out_channels": (32, 32), "layers_per_block": 1, "cross_attention_dim": tiny.TEXT, "attention_head_dim": 4}
STROKE = {"width": 24, "height": 16, "trajectories": [[[4, 4], [16, 8]]]}
NO_MOTION = STROKE | {"trajectories": [[[4, 4]]]}
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def stable_diffusion(seed: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **SD,
    )
    tiny.randomise(unet)
    return unet


def pipeline() -> ImageConductorPipeline:
    """A base in the structure of SD 1.5 and AnimateDiff, every weight random."""
    torch.manual_seed(0)
    adapter = MotionAdapter(block_out_channels=(32, 32), motion_layers_per_block=1, use_motion_mid_block=False)
    tiny.randomise(adapter)
    unet = MotionUNet.from_unet2d(stable_diffusion(0), adapter).requires_grad_(False).eval()
    image_controlnet = ImageControlNet(
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        layers_per_block=1,
        cross_attention_dim=tiny.TEXT,
        num_attention_heads=4,
    )
    tokenizer = pocket_tokenizer()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
    )
    text_encoder = pocket_text_encoder(tokenizer, tiny.TEXT)
    motion_controlnet = motion_controlnet_like(image_controlnet, ["flow"], 3.0, 4, 0)
    for network in (image_controlnet, vae, text_encoder, motion_controlnet):
        tiny.randomise(network)
    foundation = Foundation(unet, image_controlnet, vae, text_encoder, tokenizer, pocket_scheduler(), LatentSpace())
    settings = Settings(24, 16, 3, fps=8, num_inference_steps=1, guidance_scale=1.0)
    pipe = ImageConductorPipeline.assemble(foundation, motion_controlnet, settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def video(pipe: ImageConductorPipeline, strokes: dict = STROKE, **chosen) -> torch.Tensor:
    """One video of the motion ControlNet without LoRA, by the latents: all that differs is what was loaded."""
    drawn = parse_trajectories(strokes)
    tracks, visibility = (torch.from_numpy(a)[None] for a in stroke_tracks(drawn.strokes, drawn.canvas, (24, 16), 3))
    image = Image.new("RGB", (24, 16), (200, 30, 90))
    weights = chosen.pop("personal_loras", pipe.settings.personal_loras)
    with personal_loras(pipe.unet, pipe.text_encoder, weights):
        return pipe.sample_latents(
            pipe.foundation.encode_images(fit_image(image, (tiny.WIDTH, tiny.HEIGHT))[0]),
            pipe.foundation.encode_text(["a red circle"]),
            {"object": Strokes(tracks, visibility)},
            "controlnet",
            latents=torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(0)),
        )


def ldm_key(key: str) -> str:
    """The key of a UNet of two levels and one layer in the layout of Stable Diffusion's own files."""
    for pattern, place in (
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        (r"^conv_norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^down_blocks\.0\.resnets\.0\.", "input_blocks.1.0."),
        (r"^down_blocks\.0\.attentions\.0\.", "input_blocks.1.1."),
        (r"^down_blocks\.0\.downsamplers\.0\.conv\.", "input_blocks.2.0.op."),
        (r"^down_blocks\.1\.resnets\.0\.", "input_blocks.3.0."),
        (r"^mid_block\.resnets\.0\.", "middle_block.0."),
        (r"^mid_block\.attentions\.0\.", "middle_block.1."),
        (r"^mid_block\.resnets\.1\.", "middle_block.2."),
        (r"^up_blocks\.0\.resnets\.0\.", "output_blocks.0.0."),
        (r"^up_blocks\.0\.resnets\.1\.", "output_blocks.1.0."),
        (r"^up_blocks\.0\.upsamplers\.0\.conv\.", "output_blocks.1.1.conv."),
        (r"^up_blocks\.1\.resnets\.0\.", "output_blocks.2.0."),
        (r"^up_blocks\.1\.attentions\.0\.", "output_blocks.2.1."),
        (r"^up_blocks\.1\.resnets\.1\.", "output_blocks.3.0."),
        (r"^up_blocks\.1\.attentions\.1\.", "output_blocks.3.1."),
    ):
        key = re.sub(pattern, place, key)
    for theirs, ours in (
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "conv_shortcut"),
    ):
        if "transformer_blocks" not in key:
            key = key.replace(f".{ours}.", f".{theirs}.")
    return "model.diffusion_model." + key


@pytest.fixture
def checkpoint(tmp_path):
    """Another base's weights in one file, in the original layout: UNet and text encoder."""
    state = {ldm_key(key): value for key, value in stable_diffusion(7).state_dict().items()}
    text_encoder = pocket_text_encoder(pocket_tokenizer(), tiny.TEXT)
    torch.manual_seed(7)
    tiny.randomise(text_encoder)
    for key, value in text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def lora(path, style: str, seed: int = 0, key: str = ATTENTION):
    """A LoRA of rank 2 on one attention, in kohya's or diffusers' layout; returns the file and its full update."""
    draw = torch.Generator().manual_seed(seed)
    down, up = torch.randn(2, 32, generator=draw), torch.randn(32, 2, generator=draw)
    if style == "kohya":
        name = f"lora_unet_{key.replace('.', '_')}"
        state = {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(1.0),
        }
    else:
        state = {f"unet.{key}.lora_A.weight": down, f"unet.{key}.lora_B.weight": up}
    save_file(state, path)
    return path, up @ down * (0.5 if style == "kohya" else 1.0)


def test_a_checkpoint_in_one_file_replaces_the_image_layers_and_nothing_else(checkpoint):
    pipe, other = pipeline(), stable_diffusion(7).state_dict()
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    text = pipe.text_encoder.state_dict()
    old_text = {key: value.clone() for key, value in text.items()}
    pipe.load_checkpoint(checkpoint)
    for key, value in pipe.unet.state_dict().items():
        assert torch.equal(value, before[key] if "motion_modules." in key else other[key]), key
    assert not any(torch.equal(text[key], old_text[key]) for key in text if key.endswith("weight"))


def test_the_picture_changes_and_the_strokes_still_count(checkpoint, tmp_path):
    pipe = pipeline()
    plain = video(pipe)
    pipe.load_personal_lora(lora(tmp_path / "a.safetensors", "kohya")[0], "a")
    assert torch.equal(video(pipe), plain)
    personal = video(pipe, personal_loras={"a": 0.7})
    assert not torch.allclose(personal, plain)
    assert not torch.allclose(personal, video(pipe, NO_MOTION, personal_loras={"a": 0.7}))
    pipe.load_checkpoint(checkpoint)
    assert not torch.allclose(video(pipe), plain)
    assert not torch.allclose(video(pipe), video(pipe, NO_MOTION))


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
def test_a_lora_is_added_times_its_weight(tmp_path, style):
    pipe, reference = pipeline(), pipeline()
    path, update = lora(tmp_path / "a.safetensors", style)
    pipe.load_personal_lora(path, "a")
    reference.unet.get_submodule(ATTENTION).weight.data += 0.6 * update
    torch.testing.assert_close(video(pipe, personal_loras={"a": 0.6}), video(reference))
    assert torch.equal(video(pipe), video(pipeline()))


def test_several_loras_add_up(tmp_path):
    pipe, reference = pipeline(), pipeline()
    for name, style, seed in (("a", "kohya", 1), ("b", "diffusers", 2)):
        path, update = lora(tmp_path / f"{name}.safetensors", style, seed)
        pipe.load_personal_lora(path, name)
        reference.unet.get_submodule(ATTENTION).weight.data += {"a": 0.5, "b": -1.0}[name] * update
    torch.testing.assert_close(video(pipe, personal_loras={"a": 0.5, "b": -1.0}), video(reference))


def test_a_saved_personal_model_is_the_same(tmp_path):
    pipe = pipeline()
    pipe.load_personal_lora(lora(tmp_path / "a.safetensors", "kohya")[0], "a")
    pipe.save_pretrained(tmp_path / "model")
    loaded = ImageConductorPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(video(loaded), video(pipe))
    weights = {"a": 0.7}
    torch.testing.assert_close(video(loaded, personal_loras=weights), video(pipe, personal_loras=weights))


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    pipe = pipeline()
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"unet.nowhere.lora_A.weight": torch.zeros(2, 4)}, tmp_path / "odd.safetensors")
    with pytest.raises(PersonalisationError, match="none.safetensors: no such file"):
        pipe.load_personal_lora(tmp_path / "none.safetensors", "a")
    with pytest.raises(PersonalisationError, match="a.ckpt: only .safetensors"):
        pipe.load_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(PersonalisationError, match="text.safetensors: not readable"):
        pipe.load_checkpoint(tmp_path / "text.safetensors")
    with pytest.raises(PersonalisationError, match=r"odd.safetensors: no model\.diffusion_model"):
        pipe.load_checkpoint(tmp_path / "odd.safetensors")
    with pytest.raises(PersonalisationError, match="odd.safetensors"):
        pipe.load_personal_lora(tmp_path / "odd.safetensors", "odd")
    with pytest.raises(PersonalisationError, match="personal_loras: b is not loaded"):
        video(pipe, personal_loras={"b": 1.0})


def test_a_loras_file_may_have_any_name(tmp_path):
    pipe = pipeline()
    path, _ = lora(tmp_path / "style v1.5.safetensors", "kohya")
    pipe.load_personal_lora(path, _lora_name(path))
    assert not torch.equal(video(pipe, personal_loras={"style_v1_5": 1.0}), video(pipe))


def test_a_lora_on_the_command_line():
    assert _weighted("style.safetensors")[1] == 1 and _weighted("style.safetensors=0.4")[1] == 0.4
    with pytest.raises(ValueError, match="--lora"):
        _weighted("style.safetensors=much")

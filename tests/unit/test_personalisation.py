"""Community files on a tiny base: read in their own layouts, they change the picture and leave the control."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

from models.denoising.strokes import Strokes
from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionUNet, motion_controlnet_like
from models.origins.pocket import pocket_scheduler, pocket_text_encoder, pocket_tokenizer
from models.sampling.inputs import fit_image
from models.sampling.personalisation import PersonalisationError, personal_loras
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from models.serving.generate_command import _named_lora
from models.strokes.stroke import stroke_tracks
from models.strokes.trajectories import parse_trajectories
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


def test_a_checkpoint_may_be_a_ckpt(checkpoint, tmp_path):
    torch.save({"state_dict": load_file(checkpoint), "global_step": 840000}, tmp_path / "c.ckpt")
    pipe, other = pipeline(), pipeline()
    pipe.load_checkpoint(tmp_path / "c.ckpt")
    other.load_checkpoint(checkpoint)
    assert torch.equal(video(pipe), video(other))


def domain_adapter(path: Path) -> torch.Tensor:
    """A LoRA on one attention in the layout of v3_sd15_adapter.ckpt; returns its full update."""
    draw = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=draw), torch.randn(32, 2, generator=draw)
    key = ATTENTION.replace(".to_q", ".processor.to_q_lora")
    torch.save({"state_dict": {f"module.{key}.down.weight": down, f"module.{key}.up.weight": up}}, path)
    return up @ down


def test_animatediffs_domain_adapter_is_added_times_its_weight_and_saved(tmp_path):
    pipe, reference = pipeline(), pipeline()
    update = domain_adapter(tmp_path / "v3_sd15_adapter.ckpt")
    pipe.load_personal_lora(tmp_path / "v3_sd15_adapter.ckpt", "adapter")
    reference.unet.get_submodule(ATTENTION).weight.data += 0.8 * update
    torch.testing.assert_close(video(pipe, personal_loras={"adapter": 0.8}), video(reference))
    pipe.save_pretrained(tmp_path / "model")
    loaded = ImageConductorPipeline.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(video(loaded, personal_loras={"adapter": 0.8}), video(reference))


def test_animatediffs_motion_lora_is_refused_with_the_reason(tmp_path):
    place = (
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_"
    )
    torch.save({f"{place}lora.{side}.weight": torch.zeros(2, 2) for side in ("down", "up")}, tmp_path / "v2_lora.ckpt")
    with pytest.raises(PersonalisationError, match="v2_lora.ckpt: .*a LoRA of motion modules .MotionLoRA."):
        pipeline().load_personal_lora(tmp_path / "v2_lora.ckpt", "zoom")


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    pipe = pipeline()
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"unet.nowhere.lora_A.weight": torch.zeros(2, 4)}, tmp_path / "odd.safetensors")
    with pytest.raises(PersonalisationError, match="none.safetensors: no such file"):
        pipe.load_personal_lora(tmp_path / "none.safetensors", "a")
    with pytest.raises(PersonalisationError, match=r"a.pt: only .safetensors and .ckpt files .* save its tensors as"):
        pipe.load_checkpoint(tmp_path / "a.pt")
    torch.save({"state_dict": {}, "code": Path("x")}, tmp_path / "code.ckpt")
    with pytest.raises(PersonalisationError, match="code.ckpt: not a checkpoint of tensors.*take a .safetensors"):
        pipe.load_checkpoint(tmp_path / "code.ckpt")
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
    pipe.load_personal_lora(path, _named_lora(str(path))[0])
    assert not torch.equal(video(pipe, personal_loras={"style_v1_5": 1.0}), video(pipe))


def test_a_lora_on_the_command_line():
    assert _named_lora("style.safetensors") == ("style", Path("style.safetensors"), 1.0)
    assert _named_lora("style.safetensors=0.4") == ("style", Path("style.safetensors"), 0.4)
    assert _named_lora("水墨.safetensors")[0] == "水墨" != _named_lora("动漫.safetensors")[0]
    assert _named_lora("b:a/style.safetensors=2") == ("b", Path("a/style.safetensors"), 2.0)
    with pytest.raises(ValueError, match="--lora"):
        _named_lora("style.safetensors=much")


def kohya(key: str, rank: int, alpha: float | None, seed: int, width: int = 32) -> tuple[dict, torch.Tensor]:
    """The keys of one layer in kohya's layout, and its full update."""
    draw = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, width, generator=draw), torch.randn(32, rank, generator=draw)
    name = f"lora_unet_{key.replace('.', '_')}"
    state = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    if alpha is not None:
        state[f"{name}.alpha"] = torch.tensor(alpha)
    return state, up @ down * (1 if alpha is None else alpha / rank)


OTHER_ATTENTION = ATTENTION.replace("to_q", "to_v")


@pytest.mark.parametrize("ranks", [(2, 4), (4, 2)])
def test_each_layer_has_its_own_strength_in_a_resized_lora(tmp_path, ranks):
    pipe = pipeline()
    first, update = kohya(ATTENTION, ranks[0], 0.5 * ranks[0], 1)
    second, other = kohya(OTHER_ATTENTION, ranks[1], 3.0, 2)
    save_file(first | second, tmp_path / "resized.safetensors")
    pipe.load_personal_lora(tmp_path / "resized.safetensors", "a")

    for key, right in ((ATTENTION, update), (OTHER_ATTENTION, other)):
        torch.testing.assert_close(pipe.unet.get_submodule(key).get_delta_weight("a"), right)


def test_alpha_in_the_header_counts(tmp_path):
    pipe = pipeline()
    path, update = lora(tmp_path / "a.safetensors", "diffusers")
    header = {"unet.r": 2, "unet.lora_alpha": 16, "unet.alpha_pattern": {}, "unet.use_dora": False}
    save_file(load_file(path), path, {"lora_adapter_metadata": json.dumps(header)})
    pipe.load_personal_lora(path, "a")

    torch.testing.assert_close(pipe.unet.get_submodule(ATTENTION).get_delta_weight("a"), 8 * update)


@pytest.mark.parametrize("layers", [("q_proj",), ("v_proj",), ("out_proj",), ("q_proj", "k_proj")])
def test_a_lora_on_any_layers_of_the_text_encoder_alone_is_added(tmp_path, layers):
    pipe, state, draw = pipeline(), {}, torch.Generator().manual_seed(0)
    for layer in layers:
        name = WITH_TEXT.replace("q_proj", layer)
        state[f"{name}.lora_down.weight"] = torch.randn(2, tiny.TEXT, generator=draw)
        state[f"{name}.lora_up.weight"] = torch.randn(tiny.TEXT, 2, generator=draw)
    save_file(state, tmp_path / "text.safetensors")
    pipe.load_personal_lora(tmp_path / "text.safetensors", "a")

    for layer in layers:
        name = WITH_TEXT.replace("q_proj", layer)
        right = state[f"{name}.lora_up.weight"] @ state[f"{name}.lora_down.weight"]
        found = next(m for key, m in pipe.text_encoder.named_modules() if key.endswith(f"layers.0.self_attn.{layer}"))
        torch.testing.assert_close(found.get_delta_weight("a"), right)


HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
WIDE = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"


def drawn(*shape: int) -> torch.Tensor:
    """Numbers that depend on the shape alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def tucker(core: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The product with a core, place by place of the convolution's window."""
    places = [first.T @ core[:, :, y, x] @ second for y in range(3) for x in range(3)]
    return torch.stack(places, -1).reshape(first.shape[1], second.shape[1], 3, 3)


def kronecker(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Each element of the first matrix times the whole second one, block by block."""
    return torch.cat([torch.cat([number * second for number in row], 1) for row in first])


def lycoris_layers() -> dict[str, tuple[str, dict[str, torch.Tensor], float | None, torch.Tensor]]:
    """Of each form of a layer: the layer, its tensors, alpha, and the update, worked out by hand."""
    a, b, c, d, core, other = drawn(32, 2), drawn(2, 32), drawn(32, 2) + 1, drawn(2, 32) - 1, drawn(2, 2, 3, 3), 0.5
    flat, wide = drawn(2, 32 * 9), drawn(256, 2)
    small, block, thin, long = drawn(4, 8), drawn(8, 4), drawn(8, 2), drawn(2, 4)
    window = drawn(8, 8, 3, 3)
    corner = drawn(4, 4)
    blocks = [kronecker(corner, window[:, :, y, x]) for y in range(3) for x in range(3)]
    return {
        "LoHa": (ATTENTION, dict(zip(HADA, (a, b, c, d), strict=True)), 1.0, 0.5 * (a @ b) * (c @ d)),
        "LoHa without alpha": (ATTENTION, dict(zip(HADA, (a, b, c, d), strict=True)), None, (a @ b) * (c @ d)),
        "LoHa of a layer that widens": (
            WIDE,
            dict(zip(HADA, (wide, b, wide + 1, d), strict=True)),
            4.0,
            2 * (wide @ b) * ((wide + 1) @ d),
        ),
        "LoHa of a convolution": (
            CONVOLUTION,
            dict(zip(HADA, (a, flat, c, flat + 1), strict=True)),
            2.0,
            ((a @ flat) * (c @ (flat + 1))).reshape(32, 32, 3, 3),
        ),
        "LoHa with cores": (
            CONVOLUTION,
            dict(zip(HADA, (a.T, b, c.T, d), strict=True)) | {"hada_t1": core, "hada_t2": core + other},
            3.0,
            1.5 * tucker(core, a.T, b) * tucker(core + other, c.T, d),
        ),
        "LoKr of whole factors, whose alpha does not count": (
            ATTENTION,
            {"lokr_w1": small, "lokr_w2": block},
            7.0,
            kronecker(small, block),
        ),
        "LoKr with the second factor split": (
            ATTENTION,
            {"lokr_w1": small, "lokr_w2_a": thin, "lokr_w2_b": long},
            1.0,
            0.5 * kronecker(small, thin @ long),
        ),
        "LoKr with both factors split": (
            ATTENTION,
            {"lokr_w1_a": thin, "lokr_w1_b": long, "lokr_w2_a": long.T, "lokr_w2_b": thin.T},
            4.0,
            2 * kronecker(thin @ long, long.T @ thin.T),
        ),
        "LoKr of a convolution": (
            CONVOLUTION,
            {"lokr_w1": corner, "lokr_w2": window},
            None,
            torch.stack(blocks, -1).reshape(32, 32, 3, 3),
        ),
        "LoKr with a core": (
            CONVOLUTION,
            {"lokr_w1": corner, "lokr_t2": core, "lokr_w2_a": thin.T, "lokr_w2_b": thin.T + 1},
            1.0,
            0.5
            * torch.stack(
                [kronecker(corner, tucker(core, thin.T, thin.T + 1)[:, :, y, x]) for y in range(3) for x in range(3)],
                -1,
            ).reshape(32, 32, 3, 3),
        ),
    }


@pytest.mark.parametrize("network", ["lora_unet_", "unet."])
def test_a_loha_or_lokr_of_any_form_is_merged_times_its_weight_and_off_again(tmp_path, network):
    pipe, forms = pipeline(), lycoris_layers()
    start = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    for number, (key, parts, alpha, _) in enumerate(forms.values()):
        layer = network + (key if network.endswith(".") else key.replace(".", "_"))
        state = {f"{layer}.{part}": value.contiguous() for part, value in parts.items()}
        if alpha is not None:
            state[f"{layer}.alpha"] = torch.tensor(alpha)
        save_file(state, tmp_path / "a.safetensors")
        pipe.load_personal_lora(tmp_path / "a.safetensors", f"a{number}")
    for number, (form, (key, _, _, update)) in enumerate(forms.items()):
        for strength in (1.0, 0.5):
            with personal_loras(pipe.unet, pipe.text_encoder, {f"a{number}": strength}):
                weight = pipe.unet.get_submodule(key).get_base_layer().weight
                torch.testing.assert_close(weight, start[f"{key}.weight"] + strength * update, msg=form)
    after = {k.replace(".base_layer.", "."): v for k, v in pipe.unet.state_dict().items() if ".lora_" not in k}
    assert after.keys() == start.keys() and all(torch.equal(after[key], start[key]) for key in start)


def test_a_loha_of_the_text_encoder_is_merged_and_changes_nothing_unasked(tmp_path):
    pipe, size = pipeline(), tiny.TEXT
    plain = video(pipe)
    matrices = drawn(size, 2), drawn(2, size), drawn(size, 3), drawn(3, size)
    save_file(
        {f"{WITH_TEXT}.{part}": value for part, value in zip(HADA, matrices, strict=True)}, tmp_path / "a.safetensors"
    )
    pipe.load_personal_lora(tmp_path / "a.safetensors", "a")
    found = next(m for key, m in pipe.text_encoder.named_modules() if key.endswith("layers.0.self_attn.q_proj"))
    right = (matrices[0] @ matrices[1]) * (matrices[2] @ matrices[3])
    torch.testing.assert_close(found.get_delta_weight("a"), right)
    assert torch.equal(video(pipe), plain)
    assert not torch.equal(video(pipe, personal_loras={"a": 1.0}), plain)


KOHYA = f"lora_unet_{ATTENTION.replace('.', '_')}"
WITH_TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
REFUSED = {
    "DoRA of kohya": ({**kohya(ATTENTION, 2, 1.0, 0)[0], f"{KOHYA}.dora_scale": torch.ones(32, 1)}, "DoRA"),
    "DoRA of PEFT": (
        {
            f"unet.{ATTENTION}.lora_A.weight": torch.ones(2, 32),
            f"unet.{ATTENTION}.lora_B.weight": torch.ones(32, 2),
            f"unet.{ATTENTION}.lora_magnitude_vector": torch.ones(32),
        },
        "DoRA",
    ),
    "LoHa without a matrix": ({f"{KOHYA}.hada_w1_a": torch.ones(32, 2)}, f"{KOHYA}: hada_w1_b, .* is missing"),
    "LoHa with a damaged key after a whole LoRA": (
        kohya(OTHER_ATTENTION, 2, 1.0, 0)[0]
        | {f"{KOHYA}.{part}": torch.ones(32, 32) for part in (*HADA[:3], "hada_w2_c")},
        f"{KOHYA}: hada_w2_b is missing",
    ),
    "LoHa with a tensor of another form": (
        {f"{KOHYA}.{part}": torch.ones(32, 32) for part in (*HADA, "dora_scalar")},
        f"{KOHYA}: dora_scalar is not part",
    ),
    "LoHa of DoRA": ({f"{KOHYA}.{part}": torch.ones(32, 32) for part in (*HADA, "dora_scale")}, "dora_scale: .*DoRA"),
    "LoHa that would be broadcast": (
        {f"{KOHYA}.{part}": torch.ones(1 if part == "hada_w1_a" else 32, 32) for part in HADA},
        f"{KOHYA}: hada_w1 gives .1, 32.",
    ),
    "LoHa with two alphas": (
        {f"{KOHYA}.{part}": torch.ones(32, 32) for part in HADA} | {f"{KOHYA}.alpha": torch.ones(2)},
        f"{KOHYA}.alpha: is .2,.",
    ),
    "LoKr of another size": (
        {f"unet.{ATTENTION}.lokr_w1": torch.ones(4, 4), f"unet.{ATTENTION}.lokr_w2": torch.ones(9, 8)},
        f"unet.{ATTENTION}: its update is .36, 32.",
    ),
    "LoKr without elements": (
        {f"unet.{ATTENTION}.lokr_w1": torch.ones(0, 4), f"unet.{ATTENTION}.lokr_w2": torch.ones(9, 8)},
        "no empty tensor",
    ),
    "LoCon": ({**kohya(ATTENTION, 2, 1.0, 0)[0], f"{KOHYA}.lora_mid.weight": torch.ones(2, 2)}, "Tucker"),
    "half of a layer": ({f"{KOHYA}.lora_down.weight": torch.ones(2, 32)}, "partner"),
    "not a number": (kohya(ATTENTION, 2, float("nan"), 0)[0], "not finite"),
    "another size": (kohya(ATTENTION, 2, 1.0, 0, width=48)[0], "48"),
    "a text encoder of another width": (
        {
            **kohya(ATTENTION, 2, 1.0, 0)[0],
            f"{WITH_TEXT}.lora_down.weight": torch.ones(2, 24),
            f"{WITH_TEXT}.lora_up.weight": torch.ones(24, 2),
        },
        "24",
    ),
    "nothing of this model": (kohya("down_blocks.7.attentions.0.transformer_blocks.0.attn1.to_q", 2, 1.0, 0)[0], ""),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("with_another", [False, True])
def test_a_refused_lora_is_named_and_leaves_nothing(tmp_path, name, with_another):
    state, reason = REFUSED[name]
    pipe = pipeline()
    if with_another:
        pipe.load_personal_lora(lora(tmp_path / "good.safetensors", "kohya")[0], "good")
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    text = {key: value.clone() for key, value in pipe.text_encoder.state_dict().items()}
    save_file(state, tmp_path / "refused.safetensors")
    with pytest.raises(PersonalisationError) as caught:
        pipe.load_personal_lora(tmp_path / "refused.safetensors", "a")

    assert "refused.safetensors" in str(caught.value) and re.search(reason, str(caught.value))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    for network, kept in ((pipe.unet, before), (pipe.text_encoder, text)):
        now = network.state_dict()
        assert now.keys() == kept.keys()
        assert all(torch.equal(now[key], kept[key]) for key in now)
        assert "a" not in getattr(network, "peft_config", {})


def test_layers_that_the_model_does_not_have_are_named_or_the_file_is_refused(tmp_path, caplog):
    pipe = pipeline()
    known, update = kohya(ATTENTION, 2, 1.0, 0)
    unknown, _ = kohya("down_blocks.7.attentions.0.transformer_blocks.0.attn1.to_q", 2, 1.0, 0)
    save_file(known | unknown, tmp_path / "a.safetensors")
    try:
        pipe.load_personal_lora(tmp_path / "a.safetensors", "a")
    except PersonalisationError:
        assert "a" not in getattr(pipe.unet, "peft_config", {})
    else:
        assert "1 of 2 LoRA layers" in caplog.text
        torch.testing.assert_close(pipe.unet.get_submodule(ATTENTION).get_delta_weight("a"), update)


def test_a_weight_that_is_no_number_is_refused(tmp_path):
    pipe = pipeline()
    pipe.load_personal_lora(lora(tmp_path / "a.safetensors", "kohya")[0], "a")
    with pytest.raises(PersonalisationError, match="personal_loras: a"):
        video(pipe, personal_loras={"a": float("nan")})


def test_a_checkpoint_whose_last_part_does_not_fit_replaces_nothing(checkpoint, tmp_path):
    pipe = pipeline()
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    state = load_file(checkpoint)
    first = next(key for key in state if key.startswith("cond_stage_model.") and state[key].ndim == 2)
    state[first] = state[first][..., :1].contiguous()
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(PersonalisationError, match="odd.safetensors"):
        pipe.load_checkpoint(tmp_path / "odd.safetensors")

    assert all(torch.equal(value, before[key]) for key, value in pipe.unet.state_dict().items())

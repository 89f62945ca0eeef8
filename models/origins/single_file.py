"""Networks out of single files, without a `config.json`: their sizes are read off the tensors.

v3_sd15_mm.ckpt, v3_sd15_sparsectrl_rgb.ckpt     AnimateDiff's own layout, with or without wrappers
a Stable Diffusion 1.5 checkpoint                UNet, VAE and text encoder in the original layout

What shapes do not tell is SD 1.5's: 8 heads, 32 norm groups, heads of 64 channels in the text encoder.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from models.networks.networks import ImageControlNet
from models.origins.weights import CheckpointError, fill, read_checkpoint, some_of

HEADS = 8
TEXT_HEAD_WIDTH = 64
SCALING_FACTOR = 0.18215  # of SD 1.5's VAE
LDM_UNET, LDM_VAE, LDM_TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."

_POSITIONS = re.compile(r"\.attention_blocks\.(\d+)\.pos_encoder\.pe$")


class BaseNetworks(NamedTuple):
    """What a Stable Diffusion checkpoint holds; a tokenizer is not in it."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel


def read_motion_adapter(path: Path) -> MotionAdapter:
    """AnimateDiff's motion modules in one file, such as `v3_sd15_mm.ckpt`.

    Raises:
        CheckpointError: the file is none, or a key is missing, unknown or of another shape.
    """
    state = with_diffusers_keys(read_checkpoint(path), str(path))
    state = {key: value for key, value in state.items() if "motion_modules." in key}
    if "down_blocks.0.motion_modules.0.proj_in.weight" not in state:
        raise CheckpointError(f"{path}: no down_blocks.0.motion_modules.*; expected AnimateDiff's motion modules")
    lengths = [value.shape[1] for key, value in state.items() if key.endswith(".pos_embed.pe")]
    with torch.device("meta"):
        adapter = MotionAdapter(
            block_out_channels=_widths(state, "down_blocks.{}.motion_modules.0.proj_in.weight"),
            motion_layers_per_block=_count(state, r"down_blocks\.0\.motion_modules\.(\d+)\."),
            motion_num_attention_heads=HEADS,
            use_motion_mid_block=any(key.startswith("mid_block.") for key in state),
            **({"motion_max_seq_length": lengths[0]} if lengths else {}),
        )
    return fill(adapter, state, str(path))


def read_image_controlnet(path: Path) -> ImageControlNet:
    """SparseCtrl in one file, such as `v3_sd15_sparsectrl_rgb.ckpt`.

    Raises:
        CheckpointError: the file is none or not the RGB one, or a key is missing, unknown or of another shape.
    """
    state = with_diffusers_keys(read_checkpoint(path), str(path))
    if "controlnet_cond_embedding.weight" not in state:
        raise CheckpointError(
            f"{path}: no controlnet_cond_embedding.weight; expected SparseCtrl's RGB file, conditioned on image latents"
        )
    widths = _widths(state, "down_blocks.{}.resnets.0.conv1.weight")
    attends = [any(key.startswith(f"down_blocks.{i}.attentions.") for key in state) for i in range(len(widths))]
    text = f"down_blocks.{attends.index(True)}.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    lengths = [value.shape[1] for key, value in state.items() if key.endswith(".pos_embed.pe")]
    with torch.device("meta"):
        network = ImageControlNet(
            in_channels=state["conv_in.weight"].shape[1],
            conditioning_channels=state["controlnet_cond_embedding.weight"].shape[1] - 1,  # the last one is the mask
            block_out_channels=widths,
            down_block_types=tuple("CrossAttnDownBlockMotion" if each else "DownBlockMotion" for each in attends),
            layers_per_block=_count(state, r"down_blocks\.0\.resnets\.(\d+)\."),
            cross_attention_dim=state[text].shape[1],
            attention_head_dim=HEADS,
            motion_num_attention_heads=HEADS,
            motion_max_seq_length=lengths[0] if lengths else 32,
        )
    return fill(network, state, str(path))


def read_base(path: Path) -> BaseNetworks:
    """A Stable Diffusion 1.5 checkpoint in one file, in the original layout.

    Raises:
        CheckpointError: the file is none, or a part is missing or of another architecture.
    """
    state = read_checkpoint(path)
    parts = {"UNet": LDM_UNET, "VAE": LDM_VAE, "text encoder": LDM_TEXT}
    missing = [f"{name} ({key}*)" for name, key in parts.items() if not any(each.startswith(key) for each in state)]
    if missing:
        raise CheckpointError(
            f"{path}: no {', '.join(missing)}; expected a Stable Diffusion 1.5 checkpoint in one file"
        )
    try:
        return BaseNetworks(_unet(state, path), _vae(state, path), _text_encoder(state, path))
    except (KeyError, IndexError, StopIteration) as error:
        raise CheckpointError(f"{path}: {error}: not the layout of Stable Diffusion 1.5") from None


def with_diffusers_keys(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """AnimateDiff's keys as diffusers'. Only keys that contain `.temporal_transformer.` change.

    Raises:
        CheckpointError: the temporal attentions of a block have different position codes, of which diffusers keeps one.
    """
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        new = _diffusers_key(key)
        if new not in result:
            result[new] = value
        elif not torch.equal(result[new], value):
            raise CheckpointError(f"{name}: {key} differs from the position code of the block's first attention")
    return result


def _diffusers_key(key: str) -> str:
    if ".temporal_transformer." not in key:
        return key
    key = key.replace("temporal_transformer.", "")
    key = _POSITIONS.sub(".pos_embed.pe", key)
    key = re.sub(r"\.attention_blocks\.(\d+)\.", lambda match: f".attn{int(match[1]) + 1}.", key)
    key = re.sub(r"\.norms\.(\d+)\.", lambda match: f".norm{int(match[1]) + 1}.", key)
    return key.replace(".ff_norm.", ".norm3.")


def _unet(state: Mapping[str, Tensor], path: Path) -> UNet2DConditionModel:
    blocks = {key.removeprefix(LDM_UNET): value for key, value in state.items() if key.startswith(LDM_UNET)}
    levels: list[list[int]] = [[]]  # the numbers of each level's resnets
    for number in range(1, _count(blocks, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{number}.0.op.weight" in blocks:
            levels.append([])
        else:
            levels[-1].append(number)
    attends = [f"input_blocks.{level[0]}.1.proj_in.weight" in blocks for level in levels]
    first = levels[attends.index(True)][0]
    config: dict[str, Any] = {
        "in_channels": blocks["input_blocks.0.0.weight"].shape[1],
        "out_channels": blocks["out.2.weight"].shape[0],
        "block_out_channels": tuple(blocks[f"input_blocks.{n[0]}.0.in_layers.2.weight"].shape[0] for n in levels),
        "layers_per_block": len(levels[0]),
        "down_block_types": tuple("CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)),
        "cross_attention_dim": blocks[f"input_blocks.{first}.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": HEADS,
    }
    with torch.device("meta"):
        network = UNet2DConditionModel(**config)
    return fill(network, convert_ldm_unet_checkpoint(dict(state), network.config), f"{path}: UNet")


def _vae(state: Mapping[str, Tensor], path: Path) -> AutoencoderKL:
    parts = {key.removeprefix(LDM_VAE): value for key, value in state.items() if key.startswith(LDM_VAE)}
    widths = _widths(parts, "encoder.down.{}.block.0.conv1.weight")
    with torch.device("meta"):
        network = AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            layers_per_block=_count(parts, r"encoder\.down\.0\.block\.(\d+)\."),
            latent_channels=parts["post_quant_conv.weight"].shape[0],
            sample_size=512,
            scaling_factor=SCALING_FACTOR,
        )
    return fill(network, convert_ldm_vae_checkpoint(dict(state), network.config), f"{path}: VAE")


def _text_encoder(state: Mapping[str, Tensor], path: Path) -> CLIPTextModel:
    found = {key.removeprefix("text_model."): value for key, value in convert_ldm_clip_checkpoint(dict(state)).items()}
    words, places = found["embeddings.token_embedding.weight"], found["embeddings.position_embedding.weight"]
    config = CLIPTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        intermediate_size=found["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count(found, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, words.shape[1] // TEXT_HEAD_WIDTH),
        max_position_embeddings=places.shape[0],
        projection_dim=words.shape[1],
        hidden_act="quick_gelu",
        bos_token_id=words.shape[0] - 2,  # CLIP's vocabulary ends with its two marks
        eos_token_id=words.shape[0] - 1,
        pad_token_id=words.shape[0] - 1,
    )
    network = CLIPTextModel(config)
    own = {key: key.removeprefix("text_model.") for key in network.state_dict()}
    if missing := [key for key in own.values() if key not in found]:
        raise CheckpointError(f"{path}: text encoder: missing: {some_of(missing)}")
    network.load_state_dict({key: found[bare].float() for key, bare in own.items()})
    return network.requires_grad_(False).eval()


def _count(keys: Iterable[str], pattern: str) -> int:
    """How many numbers stand at the group of the pattern."""
    return len({match[1] for key in keys if (match := re.match(pattern, key))})


def _widths(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """The output channels of a layer in each block, as long as there are blocks."""
    widths: list[int] = []
    while (name := key.format(len(widths))) in state:
        widths.append(state[name].shape[0])
    return tuple(widths)

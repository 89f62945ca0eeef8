"""Diffusers' keys of SD 1.5 as those of Stable Diffusion's own files, for networks of four levels and two layers."""

import re

from torch import Tensor

RESNET = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
ATTENTION = (("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out."))


def original_unet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's weights under `model.diffusion_model.`."""
    return {f"model.diffusion_model.{_unet_key(key)}": value for key, value in state.items()}


def original_vae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's weights under `first_stage_model.`; its attentions are convolutions there."""
    result = {}
    for key, value in state.items():
        linear = ".attentions." in key and value.ndim == 2
        result[f"first_stage_model.{_vae_key(key)}"] = value[..., None, None] if linear else value
    return result


def original_text_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's weights under `cond_stage_model.transformer.text_model.`."""
    place = "cond_stage_model.transformer.text_model."
    return {place + key.removeprefix("text_model."): value for key, value in state.items()}


def _unet_key(key: str) -> str:
    for ours, theirs in (
        ("conv_in.", "input_blocks.0.0."),
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
        ("mid_block.attentions.0.", "middle_block.1."),
    ):
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    if match := re.match(r"mid_block\.resnets\.(\d)\.(.*)", key):
        return f"middle_block.{2 * int(match[1])}.{_renamed(match[2], RESNET)}"
    match = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key)
    assert match is not None, key
    way, level, kind, layer, tail = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if way == "down":
        number = 1 + 3 * level + (2 if kind == "downsamplers" else layer)
        place = f"input_blocks.{number}"
    else:
        number = 3 * level + (2 if kind == "upsamplers" else layer)
        place = f"output_blocks.{number}"
    if kind == "resnets":
        return f"{place}.0.{_renamed(tail, RESNET)}"
    if kind == "attentions":
        return f"{place}.1.{tail}"
    if kind == "downsamplers":
        return f"{place}.0.op.{tail.removeprefix('conv.')}"
    return f"{place}.{1 if level == 0 else 2}.{tail}"


def _vae_key(key: str) -> str:
    key = key.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
    if match := re.match(r"(\w+)\.mid_block\.resnets\.(\d)\.(.*)", key):
        return f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}"
    if match := re.match(r"(\w+)\.mid_block\.attentions\.0\.(.*)", key):
        return f"{match[1]}.mid.attn_1.{_renamed(match[2], ATTENTION)}"
    if match := re.match(r"(encoder)\.down_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key):
        place = f"encoder.down.{match[2]}"
    elif match := re.match(r"(decoder)\.up_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key):
        place = f"decoder.up.{3 - int(match[2])}"
    else:
        return key
    kind, tail = match[3], match[5]
    return f"{place}.block.{match[4]}.{tail}" if kind == "resnets" else f"{place}.{kind.removesuffix('rs')}.{tail}"


def _renamed(tail: str, names: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in names:
        if tail.startswith(ours):
            return theirs + tail.removeprefix(ours)
    return tail

"""The authors' small random networks as this project's classes, with their inputs and outputs."""

import json
from functools import cache
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler
from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor

from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.origins.official import diffusers_state_dict

FOLDER = Path(__file__).parents[3] / "shared" / "golden"
DRAWINGS = ("lush-1", "rose-1", "tusun-1", "edge-a")


@cache
def config() -> dict:
    return json.loads((FOLDER / "config.json").read_text())


@cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{name}.safetensors")


def points(name: str) -> list:
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def unet() -> MotionUNet:
    heads = config()["unet"]["attention_head_dim"]
    network = MotionUNet(**_sizes(), out_channels=4, num_attention_heads=heads, use_motion_mid_block=False)
    return _filled(network, "unet")


@cache
def image_controlnet() -> ImageControlNet:
    return _filled(ImageControlNet(**_controlnet(), conditioning_channels=4), "image_controlnet")


@cache
def motion_controlnet() -> MotionControlNet:
    network = MotionControlNet(**_controlnet(), conditioning_channels=128, concat_conditioning_mask=False)
    state = diffusers_state_dict(tensors("flow_controlnet"))
    targets = sorted({key.split(".lora_A.")[0] for key in state if ".lora_A." in key})
    rank = config()["lora_rank"]
    for name in ("camera", "object"):
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), name)
    return _filled(network, "flow_controlnet")


@cache
def vae() -> AutoencoderKL:
    network = AutoencoderKL(**config()["vae"])
    network.load_state_dict({key: value.float() for key, value in tensors("vae").items()})
    return network.requires_grad_(False).eval()


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**config()["scheduler"], timestep_spacing="leading", set_alpha_to_one=True)


def _sizes() -> dict:
    sizes = config()["unet"]
    shared = (
        "in_channels block_out_channels layers_per_block norm_num_groups norm_eps cross_attention_dim act_fn "
        "downsample_padding mid_block_scale_factor"
    ).split()
    return {key: sizes[key] for key in shared} | {"motion_num_attention_heads": 8, "motion_max_seq_length": 32}


def _controlnet() -> dict:
    return _sizes() | {"attention_head_dim": config()["unet"]["attention_head_dim"]}


def _filled(network, name: str):
    state = {key: value.float() for key, value in diffusers_state_dict(tensors(name)).items()}
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()

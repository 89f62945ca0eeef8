"""The authors' released checkpoints as this project's networks (Image Conductor, inference release).

Only keys that contain `.temporal_transformer.` change their names. The motion ControlNet's checkpoint holds both LoRAs:
`omcm_weights` is the object LoRA, `cmcm_weights` the camera LoRA.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from diffusers import DDIMScheduler
from pydantic import BaseModel, PositiveInt, ValidationError
from torch import Tensor

from models.errors import field_problems
from models.lora.sets import lora_config
from models.modes import LORAS, Lora
from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.origins.hub import load_base
from models.origins.single_file import with_diffusers_keys
from models.origins.weights import CheckpointError, fill, read_checkpoint
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings

LORA_NAMES = {"omcm_weights": "object", "cmcm_weights": "camera"}
CODEC_FACTOR = 8

SD15: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "act_fn": "silu",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "steps_offset": 1,
    "clip_sample": False,
    "timestep_spacing": "leading",
    "set_alpha_to_one": True,
}


class OfficialNetworks(NamedTuple):
    """The three networks, frozen, in eval mode; the motion ControlNet holds the adapters `camera` and `object`."""

    unet: MotionUNet
    image_controlnet: ImageControlNet
    motion_controlnet: MotionControlNet


def import_official(
    unet: Path,
    image_controlnet: Path,
    flow_controlnet: Path,
    base: str | Path | None = None,
    config: Path | None = None,
) -> ImageConductorPipeline:
    """The authors' checkpoints as a pipeline, ready to be saved or used.

    Args:
        unet, image_controlnet, flow_controlnet: checkpoint files, see `read_checkpoint`.
        base: where `vae`, `text_encoder` and `tokenizer` come from: a folder in diffusers' layout, a hub id, or a
            Stable Diffusion checkpoint in one file. Without it the pipeline works on latents and embeddings alone.
        config: JSON with network sizes that are not SD 1.5's, see `read_config`.

    Raises:
        CheckpointError: a file is missing or unreadable, or a key is missing, unknown or of another shape.
        NotPublished: the base, or a part of it, is not there.
    """
    sizes = read_config(config)
    networks = official_networks(
        read_checkpoint(unet), read_checkpoint(image_controlnet), read_checkpoint(flow_controlnet), sizes["unet"]
    )
    vae = text_encoder = tokenizer = None
    if base is not None:
        vae, text_encoder, tokenizer = load_base(base, "--base")
        width, wanted = text_encoder.config.hidden_size, networks.unet.config.cross_attention_dim
        if width != wanted:
            raise CheckpointError(f"{base}/text_encoder: embeddings of {width}, but the UNet was built for {wanted}")
    foundation = Foundation(
        networks.unet,
        networks.image_controlnet,
        cast(Any, vae),
        cast(Any, text_encoder),
        cast(Any, tokenizer),
        DDIMScheduler(**SCHEDULER | sizes["scheduler"]),
        LatentSpace(),
    )
    for network in foundation.networks():
        network.requires_grad_(False).eval()
    return ImageConductorPipeline.assemble(foundation, networks.motion_controlnet, Settings(**sizes["settings"]))


def official_networks(
    unet: Mapping[str, Tensor],
    image_controlnet: Mapping[str, Tensor],
    flow_controlnet: Mapping[str, Tensor],
    sizes: Mapping[str, Any] = SD15,
) -> OfficialNetworks:
    """Networks of the given sizes with the authors' weights; see `import_official`."""
    flow_state = diffusers_state_dict(flow_controlnet, "flow ControlNet")
    empty = empty_networks(sizes, {name: _rank(flow_state, name) for name in LORAS})
    return OfficialNetworks(
        fill(empty.unet, diffusers_state_dict(unet, "UNet"), "UNet"),
        fill(empty.image_controlnet, diffusers_state_dict(image_controlnet, "image ControlNet"), "image ControlNet"),
        fill(empty.motion_controlnet, flow_state, "flow ControlNet"),
    )


def empty_networks(sizes: Mapping[str, Any], ranks: Mapping[Lora, int]) -> OfficialNetworks:
    """The authors' networks without weights, on the meta device."""
    heads = sizes["attention_head_dim"]  # the number of heads, in spite of its name
    shared = {key: value for key, value in sizes.items() if key not in ("out_channels", "attention_head_dim")}
    shared |= {"motion_num_attention_heads": 8, "motion_max_seq_length": sizes.get("motion_max_seq_length", 32)}
    with torch.device("meta"):
        motion_controlnet = MotionControlNet(
            **shared,
            attention_head_dim=heads,
            conditioning_channels=2 * CODEC_FACTOR**2,
            concat_conditioning_mask=False,
            codec_factor=CODEC_FACTOR,
        )
        for name, rank in ranks.items():
            motion_controlnet.add_adapter(lora_config(motion_controlnet, rank), adapter_name=name)
        return OfficialNetworks(
            MotionUNet(
                **shared, out_channels=sizes["out_channels"], num_attention_heads=heads, use_motion_mid_block=False
            ),
            ImageControlNet(**shared, attention_head_dim=heads, conditioning_channels=sizes["in_channels"]),
            motion_controlnet,
        )


def diffusers_state_dict(official: Mapping[str, Tensor], name: str = "checkpoint") -> dict[str, Tensor]:
    """Rename the authors' keys to diffusers'; LoRA keys keep their suffix, with adapter names `object` and `camera`.

    Raises:
        CheckpointError: the temporal attentions of a block have different position codes, of which diffusers keeps one.
    """
    return with_diffusers_keys({_own_lora_name(key): value for key, value in official.items()}, name)


class _MotionModule(BaseModel):
    temporal_position_encoding_max_len: PositiveInt | None = None


class _Additional(BaseModel):
    motion_module_kwargs: _MotionModule = _MotionModule()


class _Config(BaseModel):
    """What is read of the authors' configuration; the rest is left alone."""

    unet: dict[str, Any] = {}
    unet_additional_kwargs: _Additional = _Additional()
    scheduler: dict[str, Any] = {}
    frames: PositiveInt | None = None
    lat_h: PositiveInt | None = None
    lat_w: PositiveInt | None = None
    steps: PositiveInt | None = None
    guidance_scale: float | None = None


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """`unet` sizes, `scheduler` and `settings` of a JSON file; what it leaves out is SD 1.5's and the authors'.

    The file has the keys of the authors' configuration: `unet` (as in diffusers' UNet configs),
    `unet_additional_kwargs`, `scheduler`, and `frames`, `lat_h`, `lat_w`, `steps`, `guidance_scale`.

    Raises:
        CheckpointError: the file is missing, no JSON object, or a key has another kind of value.
    """
    try:
        given = _Config.model_validate_json(path.read_text(encoding="utf-8")) if path else _Config()
    except ValidationError as error:
        raise CheckpointError(f"--config: {path}: {'; '.join(field_problems(error))}") from None
    except (OSError, UnicodeError) as error:
        raise CheckpointError(f"--config: {path}: not readable: {error}") from None
    unet = SD15 | {key: value for key, value in given.unet.items() if key in SD15}
    longest = given.unet_additional_kwargs.motion_module_kwargs.temporal_position_encoding_max_len
    if longest is not None:
        unet["motion_max_seq_length"] = longest
    sizes = {
        "width": given.lat_w and given.lat_w * CODEC_FACTOR,
        "height": given.lat_h and given.lat_h * CODEC_FACTOR,
        "frames": given.frames,
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance_scale,
    }
    settings = asdict(Settings()) | {name: value for name, value in sizes.items() if value is not None}
    return {"unet": unet, "scheduler": given.scheduler, "settings": settings}


def _rank(state: Mapping[str, Tensor], adapter: str) -> int:
    ranks = {value.shape[0] for key, value in state.items() if key.endswith(f".lora_A.{adapter}.weight")}
    if len(ranks) != 1:
        theirs = next(key for key, ours in LORA_NAMES.items() if ours == adapter)
        found = f"ranks {sorted(ranks)}" if ranks else "no such weights"
        raise CheckpointError(f"flow ControlNet: expected the {adapter} LoRA ({theirs}) in one rank, found {found}")
    return ranks.pop()


def _own_lora_name(key: str) -> str:
    for theirs, ours in LORA_NAMES.items():
        key = key.replace(f".{theirs}.", f".{ours}.")
    return key

"""The authors' released checkpoints as this project's networks (Image Conductor, inference release).

Only keys that contain `.temporal_transformer.` change their names. The motion ControlNet's checkpoint holds both LoRAs:
`omcm_weights` is the object LoRA, `cmcm_weights` the camera LoRA.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from diffusers import DDIMScheduler
from diffusers.models.modeling_utils import ModelMixin
from pydantic import BaseModel, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.errors import UserError, field_problems
from models.lora.sets import lora_config
from models.modes import LORAS, Lora
from models.networks.foundation import Foundation, load_codec
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings

LORA_NAMES = {"omcm_weights": "object", "cmcm_weights": "camera"}
SHOWN_KEYS = 5
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

_POSITIONS = re.compile(r"\.attention_blocks\.(\d+)\.pos_encoder\.pe$")
Network = TypeVar("Network", bound=ModelMixin)


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the keys."""


class OfficialNetworks(NamedTuple):
    """The three networks, frozen, in eval mode; the motion ControlNet holds the adapters `camera` and `object`."""

    unet: MotionUNet
    image_controlnet: ImageControlNet
    motion_controlnet: MotionControlNet


def import_official(
    unet: Path, image_controlnet: Path, flow_controlnet: Path, base: Path | None = None, config: Path | None = None
) -> ImageConductorPipeline:
    """The authors' checkpoints as a pipeline, ready to be saved or used.

    Args:
        unet, image_controlnet, flow_controlnet: checkpoint files, see `read_checkpoint`.
        base: folder in diffusers' layout whose `vae`, `text_encoder` and `tokenizer` are taken; without it the pipeline
            works on latents and embeddings alone.
        config: JSON with network sizes that are not SD 1.5's, see `read_config`.

    Raises:
        CheckpointError: a file is missing or unreadable, or a key is missing, unknown or of another shape.
    """
    sizes = read_config(config)
    networks = official_networks(
        read_checkpoint(unet), read_checkpoint(image_controlnet), read_checkpoint(flow_controlnet), sizes["unet"]
    )
    vae = text_encoder = tokenizer = None
    if base is not None:
        missing = [name for name in ("vae", "text_encoder", "tokenizer") if not (base / name).is_dir()]
        if missing:
            raise CheckpointError(f"{base}: no {', '.join(missing)}; expected a folder in diffusers' layout")
        vae = load_codec(base / "vae")
        text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder", use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
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
        _filled(empty.unet, diffusers_state_dict(unet, "UNet"), "UNet"),
        _filled(empty.image_controlnet, diffusers_state_dict(image_controlnet, "image ControlNet"), "image ControlNet"),
        _filled(empty.motion_controlnet, flow_state, "flow ControlNet"),
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
    renamed: dict[str, Tensor] = {}
    for key, value in official.items():
        new = _diffusers_key(key)
        if new in renamed:
            if not torch.equal(renamed[new], value):
                raise CheckpointError(f"{name}: {key} differs from the position code of the block's first attention")
            continue
        renamed[new] = value
    return renamed


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """A state dict: `.safetensors`, or a `.ckpt` that holds it bare or as `state_dict`; nothing else is unpickled.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, or holds something other than tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of tensors alone: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a state dict, bare or under the key state_dict")
    return state


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


def _filled(network: Network, state: dict[str, Tensor], name: str) -> Network:
    """Put the weights into an empty network.

    Raises:
        CheckpointError: a key is missing, unknown or of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    shapes = {
        key: f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    }
    for what, keys in (
        ("missing", [key for key in expected if key not in state]),
        ("unknown", [key for key in state if key not in expected]),
        ("of another shape", list(shapes.values())),
    ):
        if keys:
            more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
            raise CheckpointError(f"{name}: {what}: {', '.join(keys[:SHOWN_KEYS])}{more}")
    network.load_state_dict(state, assign=True)
    return network.float().requires_grad_(False).eval()


def _rank(state: Mapping[str, Tensor], adapter: str) -> int:
    ranks = {value.shape[0] for key, value in state.items() if key.endswith(f".lora_A.{adapter}.weight")}
    if len(ranks) != 1:
        theirs = next(key for key, ours in LORA_NAMES.items() if ours == adapter)
        found = f"ranks {sorted(ranks)}" if ranks else "no such weights"
        raise CheckpointError(f"flow ControlNet: expected the {adapter} LoRA ({theirs}) in one rank, found {found}")
    return ranks.pop()


def _diffusers_key(key: str) -> str:
    for theirs, ours in LORA_NAMES.items():
        key = key.replace(f".{theirs}.", f".{ours}.")
    if ".temporal_transformer." not in key:
        return key
    key = key.replace("temporal_transformer.", "")
    key = _POSITIONS.sub(".pos_embed.pe", key)
    key = re.sub(r"\.attention_blocks\.(\d+)\.", lambda match: f".attn{int(match[1]) + 1}.", key)
    key = re.sub(r"\.norms\.(\d+)\.", lambda match: f".norm{int(match[1]) + 1}.", key)
    return key.replace(".ff_norm.", ".norm3.")

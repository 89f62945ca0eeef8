"""The paper's base out of its published parts: SD 1.5 + AnimateDiff v3 motion modules + RGB SparseCtrl (Sec 2.3).

A part is a hub id, a local folder in diffusers' layout, or the original file. Full and half precision, `.safetensors`
and `.bin` are read; see `models.origins.weights`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.networks.codec import Codec
from models.networks.foundation import CODECS, Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionUNet
from models.origins.addresses import NotPublished, local_place
from models.origins.single_file import read_base, read_image_controlnet, read_motion_adapter
from models.origins.weights import (
    POSITION_CODES,
    CheckpointError,
    find_weights,
    first_line,
    read_weights,
    some_of,
)

SD15_ADDRESS = "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
PLAIN_NAMES = {True: "diffusion_pytorch_model", False: "model"}  # of weights, for networks of diffusers or not


class BaseParts(NamedTuple):
    """What surrounds the UNet."""

    vae: Codec
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer


def assemble_foundation(base: str, motion_adapter: str, image_controlnet: str) -> Foundation:
    """Put the published parts together; each is a hub id, a local folder in diffusers' layout, or the original file.

    Raises:
        NotPublished: a part is not there, and the hub does not give it.
        CheckpointError: a weight file cannot be used, or the parts are of different sizes.
    """
    whole = local_place(base, field="foundation.base") if Path(base).expanduser().is_file() else None
    if whole is not None:
        unet, vae, text_encoder = read_base(whole)
        around = BaseParts(vae, text_encoder, _tokenizer_for(whole))
    else:
        unet = load_network(UNet2DConditionModel, base, "unet", "foundation.base")
        around = load_base(base, "foundation.base")
    adapter = load_network(MotionAdapter, motion_adapter, field="foundation.motion_adapter")
    control = load_network(ImageControlNet, image_controlnet, field="foundation.image_controlnet")
    _check_inputs(unet, around, adapter, base, motion_adapter)
    text_width = around.text_encoder.config.hidden_size
    for field, address, part, keys in (
        ("motion_adapter", motion_adapter, adapter, ["block_out_channels"]),
        ("image_controlnet", image_controlnet, control, ["block_out_channels", "cross_attention_dim"]),
    ):
        for key in keys:
            if _plain(found := part.config[key]) != _plain(wanted := unet.config[key]):
                raise CheckpointError(
                    f"foundation.{field}: {address}: {key} {_plain(found)}, but that of {base} is {_plain(wanted)}; "
                    "take parts of one architecture"
                )
    if unet.config.cross_attention_dim != text_width:
        raise CheckpointError(
            f"foundation.base: {base}: cross_attention_dim of the UNet is {unet.config.cross_attention_dim}, but "
            f"hidden_size of the text encoder {text_width}; take parts of one architecture"
        )
    return Foundation(
        unet=MotionUNet.from_unet2d(unet, adapter),
        image_controlnet=control,
        vae=around.vae,
        text_encoder=around.text_encoder,
        tokenizer=around.tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="linear",
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
            timestep_spacing="leading",
        ),
        latent_space=LatentSpace(),
    )


def _check_inputs(
    unet: UNet2DConditionModel, around: BaseParts, adapter: MotionAdapter, base: str, motion_adapter: str
) -> None:
    """Raises CheckpointError if the UNet would take more than noisy latents: inpainting bases, adapters like PIA's."""
    channels = around.vae.config.latent_channels
    if unet.config.in_channels != channels:
        raise CheckpointError(
            f"foundation.base: {base}: in_channels {unet.config.in_channels}, expected {channels}, the latents of its "
            "VAE; take a base for text to image, not one for inpainting"
        )
    if adapter.config.conv_in_channels:
        raise CheckpointError(
            f"foundation.motion_adapter: {motion_adapter}: conv_in_channels {adapter.config.conv_in_channels}; take an "
            "adapter that leaves the UNet's input as it is, such as AnimateDiff's"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def load_base(base: str | Path, field: str) -> BaseParts:
    """VAE, text encoder and tokenizer of a base; see `assemble_foundation`.

    Args:
        field: what messages call the base.
    """
    path = Path(base).expanduser()
    if path.is_file():
        _, vae, text_encoder = read_base(path)
        return BaseParts(vae, text_encoder, _tokenizer_for(path))
    if path.is_dir():
        missing = [name for name in ("vae", "text_encoder", "tokenizer") if not (path / name).is_dir()]
        if missing:
            raise NotPublished(f"{field}: {base}: no {', '.join(missing)}; expected a folder in diffusers' layout")
    named = _config(local_place(base, "vae", field)).get("_class_name", "AutoencoderKL")
    if named not in CODECS:
        raise CheckpointError(f"{field}: {base}/vae/config.json: class {named!r}; use one of {', '.join(CODECS)}")
    return BaseParts(
        load_network(CODECS[named], base, "vae", field),
        load_network(CLIPTextModel, base, "text_encoder", field),
        _tokenizer(base, field),
    )


def load_network(network_class: Any, address: str | Path, subfolder: str = "", field: str = "") -> Any:
    """A published network, float32, frozen, in eval mode.

    Keys of its `config.json` that the class does not use are left out.

    Raises:
        NotPublished: there is nothing at the address.
        CheckpointError: a file of it cannot be used, or weights are missing; the message names file and keys.
    """
    place = local_place(address, subfolder, field)
    if place.is_file():
        readers = {MotionAdapter: read_motion_adapter, ImageControlNet: read_image_controlnet}
        return readers[network_class](place)
    if network_class is ImageControlNet and not _config(place).get("use_simplified_condition_embedding", True):
        raise CheckpointError(
            f"{place}/config.json: use_simplified_condition_embedding is false; expected SparseCtrl's RGB weights, "
            "conditioned on image latents, not the scribble ones"
        )
    with _plain_folder(place, network_class) as folder:
        try:
            network, report = network_class.from_pretrained(
                folder, torch_dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{place}: not a {network_class.__name__}: {first_line(error)}") from None
    missing = [key for key in report["missing_keys"] if not key.endswith((POSITION_CODES, ".position_ids"))]
    if missing:
        raise CheckpointError(f"{place}: weights of another {network_class.__name__}: missing: {some_of(missing)}")
    return network.requires_grad_(False).eval()


@contextmanager
def _plain_folder(place: Path, network_class: type) -> Iterator[Path]:
    """The folder as a network's `from_pretrained` wants it: plain names, `.safetensors`, keys that the class knows."""
    files = find_weights([path.name for path in place.iterdir()])
    if not files:
        raise CheckpointError(
            f"{place}: no weights; expected diffusion_pytorch_model, model or pytorch_model, as .safetensors or .bin, "
            f"found {some_of(sorted(path.name for path in place.iterdir())) or 'nothing'}"
        )
    of_diffusers = issubclass(network_class, ModelMixin)
    plain = PLAIN_NAMES[of_diffusers]
    config = _config(place)
    if of_diffusers:
        keys = network_class.config_keys() if hasattr(network_class, "config_keys") else _init_keys(network_class)
        config = {key: value for key, value in config.items() if key in keys or key.startswith("_")}
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if files[0].endswith(".safetensors"):
            (folder / f"{plain}.safetensors").symlink_to((place / files[0]).resolve())
        else:
            save_file(_apart(read_weights(place, files)), folder / f"{plain}.safetensors", metadata={"format": "pt"})
        yield folder


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none of which shares memory with another, as `.safetensors` wants it."""
    apart: dict[str, Tensor] = {}
    seen: set[Any] = set()
    for key, value in state.items():
        place = value.untyped_storage().data_ptr() + value.storage_offset() * value.element_size()
        apart[key] = value.clone(memory_format=torch.contiguous_format) if place in seen else value.contiguous()
        seen.add(place)
    return apart


def _init_keys(network_class: Any) -> set[str]:
    return network_class._get_init_keys(network_class) - {"self", "kwargs"}


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; expected a folder in diffusers' layout") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a JSON file: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content


def _tokenizer(address: str | Path, field: str) -> CLIPTokenizer:
    folder = local_place(address, "tokenizer", field)
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a CLIP tokenizer: {first_line(error)}") from None


def _tokenizer_for(checkpoint: Path) -> CLIPTokenizer:
    """The tokenizer of a checkpoint in one file: that in `tokenizer/` beside it, or SD 1.5's of the hub."""
    beside = checkpoint.parent
    if (beside / "tokenizer").is_dir():
        return _tokenizer(beside, str(checkpoint))
    return _tokenizer(SD15_ADDRESS, f"{checkpoint}: no folder tokenizer beside it")

"""Files of community LoRAs: read whole, refused where they are more than a LoRA, and made plain.

A plain LoRA has the scale 1: the strength alpha / rank of each layer, from the file's keys or its header, is multiplied
into its second matrix. What a loader makes of alpha then no longer matters. A LoHa or LoKr becomes the plain LoRA that
is equal to it.

DoRA is refused: its update follows from the norm of the weight that it lies on, which another checkpoint replaces.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.errors import UserError
from models.origins.weights import CheckpointError, read_checkpoint
from models.sampling.lycoris import as_lora, is_lycoris, layer_update

HEADER = "lora_adapter_metadata"  # where diffusers keeps rank and alpha
PAIRS = (  # endings of the first and the second matrix of a layer
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)
OTHER_KINDS = {  # part of a key: what the file is instead
    "dora_scale": "DoRA, whose effect depends on the weights of the base",
    "lora_magnitude_vector": "DoRA, whose effect depends on the weights of the base",
    "lora_mid": "a Tucker LoCon",
    "oft_": "OFT",
    "boft_": "BOFT",
    "ia3_": "IA3",
    "on_input": "IA3",
    ".a1.weight": "GLoRA",
    ".diff": "a difference of full weights",
    ".set_weight": "a set of full weights",
    ".w_norm": "a set of norm weights",
    ".b_norm": "a set of norm weights",
}
SUPPORTED = "LoRA, LoHa and LoKr are supported"
ALPHA = ".alpha"
UNET_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")  # how keys without the name of their network begin


class PersonalisationError(UserError):
    """A community file that cannot be used; the message names it and says why."""


def read_community_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header's metadata of a `.safetensors` file, or the tensors of a `.ckpt` file.

    A `.ckpt` is read by `torch.load(weights_only=True)`, which runs no code of the file.

    Raises:
        PersonalisationError: the file is missing, of another kind, damaged, or holds values that are not finite.
    """
    if path.suffix not in (".safetensors", ".ckpt"):
        raise PersonalisationError(
            f"{path}: only .safetensors and .ckpt files are read; save its tensors as .safetensors "
            "(safetensors.torch.save_file), or take the author's .safetensors file"
        )
    state, metadata = _read_ckpt(path) if path.suffix == ".ckpt" else _read_safetensors(path)
    for key, value in state.items():
        if value.is_floating_point() and not value.float().isfinite().all():
            raise PersonalisationError(f"{path}: {key}: holds values that are not finite numbers")
    return state, metadata


def copy_as_safetensors(source: Path, target: Path) -> None:
    """Copy a community file; a `.ckpt` becomes the `.safetensors` of its tensors.

    Raises:
        PersonalisationError: see `read_community_file`.
    """
    if source.suffix == ".safetensors":
        shutil.copyfile(source, target)
    else:
        save_file({key: value.contiguous() for key, value in read_community_file(source)[0].items()}, target)


def _read_ckpt(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_checkpoint(path), {}
    except CheckpointError as error:
        raise PersonalisationError(f"{error}; if it holds more than tensors, take a .safetensors file") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dict)
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise PersonalisationError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise PersonalisationError(f"{path}: not readable: {error}") from None
    return state, metadata


def read_plain_lora(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The matrices of a LoRA file, with the strength of each layer multiplied into its second matrix; no alpha.

    Layers of a LoHa or LoKr get the keys of a LoRA.

    Args:
        path: of the file.
        shapes: of the model's weights, by the names that files give their layers, in kohya's and diffusers' layout.

    AnimateDiff's domain adapter (`v3_sd15_adapter.ckpt`) names the UNet's layers without a prefix; it gets one.

    Raises:
        PersonalisationError: see `read_community_file`; or the file is another kind of adapter, a matrix lacks its
            partner, or tensors of a layer do not fit together.
    """
    state, metadata = read_community_file(path)
    for key in state:
        for part, kind in OTHER_KINDS.items():
            if part in key:
                raise PersonalisationError(f"{path}: {key}: this is {kind}; {SUPPORTED}")
    if of_motion := next((key for key in state if "motion_module" in key), None):
        raise PersonalisationError(
            f"{path}: {of_motion}: a LoRA of motion modules (MotionLoRA); strokes and camera moves direct the motion "
            "here. Use a LoRA of the picture's look"
        )
    state = {f"unet.{key}" if key.startswith(UNET_BLOCKS) else key: value for key, value in state.items()}
    settings = _header(path, metadata)
    state = _without_lycoris(path, state, settings, shapes)
    plain = {key: value for key, value in state.items() if not key.endswith(ALPHA)}
    for key in list(plain):
        for first, second in PAIRS:
            if not key.endswith(first):
                continue
            layer = key.removesuffix(first)
            if layer + second not in plain:
                raise PersonalisationError(f"{path}: {key}: its partner *{second} is missing")
            if plain[key].ndim < 2 or 0 in plain[key].shape:
                raise PersonalisationError(f"{path}: {key}: is {tuple(plain[key].shape)}, expected a matrix")
            alpha = _alpha(path, layer, state)
            strength = _strength(layer, plain[key].shape[0], alpha, settings)
            up = plain[layer + second]
            plain[layer + second] = (up.float() * strength).to(up.dtype) if strength != 1 else up
            break
    return plain


def lora_pairs(plain: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """First and second matrix of each layer of a plain LoRA, by the layer's name in the file."""
    return {
        key.removesuffix(first): (value, plain[key.removesuffix(first) + second])
        for key, value in plain.items()
        for first, second in PAIRS
        if key.endswith(first)
    }


def _without_lycoris(
    path: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """The state, where each layer of a LoHa or LoKr is the LoRA that is equal to it, of the strength 1."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key in state:
        layer, _, part = key.rpartition(".")
        if is_lycoris(part):
            layers[layer] = {}
    plain = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if layer not in layers:
            plain[key] = value
        elif f".{part}" != ALPHA:
            layers[layer][part] = value
    for layer, parts in layers.items():
        alpha = _alpha(path, layer, state)
        if alpha is None and any(key.endswith("alpha") for key in settings):
            raise PersonalisationError(
                f"{path}: {layer}: the alpha of this LoHa or LoKr is in the file's header; only {layer}{ALPHA} is read"
            )
        try:
            update, rank = layer_update(parts)
            strength = 1.0 if rank is None else _strength(layer, rank, alpha, {})
            pair = as_lora(strength * update, shapes.get(layer, (update.shape[0], update[0].numel())))
        except ValueError as error:
            raise PersonalisationError(f"{path}: {layer}: {error}") from None
        endings = PAIRS[0] if layer.startswith("lora_") else PAIRS[1]
        plain |= {layer + ending: matrix for ending, matrix in zip(endings, pair, strict=True)}
    return plain


def _alpha(path: Path, layer: str, state: Mapping[str, Tensor]) -> float | None:
    alpha = state.get(layer + ALPHA)
    if alpha is not None and alpha.numel() != 1:
        raise PersonalisationError(f"{path}: {layer}{ALPHA}: is {tuple(alpha.shape)}, expected one number")
    return None if alpha is None else float(alpha)


def _strength(layer: str, rank: int, alpha: float | None, settings: Mapping[str, Any]) -> float:
    """alpha / rank of a layer: its own alpha, else that of the header, else 1."""
    if alpha is not None:
        return alpha / rank
    network, _, module = layer.partition(".")
    given = settings.get(f"{network}.lora_alpha")
    if given is None:
        return 1.0
    for pattern, value in (settings.get(f"{network}.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            given = value
            break
    return float(given) / (rank**0.5 if settings.get(f"{network}.use_rslora") else rank)


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        settings = json.loads(metadata.get(HEADER, "{}"))
    except ValueError:
        raise PersonalisationError(f"{path}: its header's {HEADER} is not JSON") from None
    if not isinstance(settings, dict):
        raise PersonalisationError(f"{path}: its header's {HEADER} is no object")
    if any(value for key, value in settings.items() if key.endswith(".use_dora")):
        raise PersonalisationError(f"{path}: {HEADER}: this is DoRA; {SUPPORTED}")
    return settings

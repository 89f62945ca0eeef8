"""Weight files as they are published: their tensors by key, and which file of a folder holds them.

Only tensors are read. Files that are not `.safetensors` are opened by `torch.load(weights_only=True)`, which runs no
code of the file.
"""

import json
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import UserError

SHOWN_KEYS = 5
WRAPPERS = ("state_dict", "controlnet", "model", "module", "params")  # keys that training programs put weights under
PREFIXES = ("module.", "_orig_mod.")  # put before each key by data parallelism and by torch.compile
STEMS = {"safetensors": ("diffusion_pytorch_model", "model"), "bin": ("diffusion_pytorch_model", "pytorch_model")}
VARIANTS = ("", "fp16", "bf16", "fp32", "non_ema")  # of one network, the preferred one first
POSITION_CODES = ".pos_embed.pe"  # computed from their shape, so files may lack them

Network = TypeVar("Network", bound=ModelMixin)


class CheckpointError(UserError):
    """A weight file that cannot be used; the message names the file and the keys."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, bare or wrapped as training programs do it; see `bare_state`.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, or holds no tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return bare_state(load_file(path), str(path))
        mapped = zipfile.is_zipfile(path)  # what older versions of torch wrote cannot be memory-mapped
        return bare_state(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except CheckpointError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of tensors alone: {first_line(error)}") from None


def bare_state(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors by key, without wrappers, without prefixes of parallel training, without what is no tensor.

    A dict under one of `WRAPPERS` is taken in place of the dict around it. Step counters and settings are left out.

    Raises:
        CheckpointError: there are no tensors, or two keys become one.
    """
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = dict(content) if isinstance(content, Mapping) else {}
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            bare = _without_prefix(key)
            if bare in state:
                raise CheckpointError(f"{name}: {key}: the file has this key with and without a prefix")
            state[bare] = value
    if not state:
        found = f"a dict of {', '.join(map(str, list(tensors)[:SHOWN_KEYS]))}" if tensors else type(content).__name__
        raise CheckpointError(
            f"{name}: expected a state dict, bare or under one of the keys {', '.join(WRAPPERS)}; found {found}"
        )
    return state


def find_weights(names: Collection[str]) -> list[str]:
    """The files, out of a folder's file names, that hold the network's weights; empty if there are none.

    Full precision comes before half precision, one file before its index with shards, `.safetensors` before `.bin`.
    Of shards the index comes first.
    """
    for kind, variant in product(STEMS, VARIANTS):
        dot = f".{variant}" if variant else ""
        for stem in STEMS[kind]:
            if f"{stem}{dot}.{kind}" in names:
                return [f"{stem}{dot}.{kind}"]
            if (index := f"{stem}.{kind}.index{dot}.json") in names:
                shards = (name for name in names if name.startswith(f"{stem}{dot}-") and name.endswith(f".{kind}"))
                return [index, *sorted(shards)]
    return []


def read_weights(folder: Path, files: Collection[str]) -> dict[str, Tensor]:
    """The state dict of the files that `find_weights` names.

    Raises:
        CheckpointError: a file is missing or unreadable.
    """
    files = list(files)
    if not files[0].endswith(".json"):
        return read_checkpoint(folder / files[0])
    try:
        shards = set(json.loads((folder / files[0]).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / files[0]}: not an index of weight files: {first_line(error)}") from None
    state: dict[str, Tensor] = {}
    for shard in sorted(shards):
        state |= read_checkpoint(folder / shard)
    return state


def fill(network: Network, state: dict[str, Tensor], name: str) -> Network:
    """Put weights into an empty network on the meta device; float32, frozen, in eval mode.

    Raises:
        CheckpointError: a key is missing, unknown or of another shape. Position codes may be missing.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    codes = {key: _position_codes(expected[key]) for key in expected if key.endswith(POSITION_CODES)}
    state = codes | state
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
            raise CheckpointError(f"{name}: {what}: {some_of(keys)}")
    network.load_state_dict(state, assign=True)
    return network.float().requires_grad_(False).eval()


def some_of(keys: Collection[str]) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"{', '.join(list(keys)[:SHOWN_KEYS])}{more}"


def first_line(error: Exception) -> str:
    """What an error says, on one line; its type where it says nothing."""
    return next(iter(_lines(str(error))), repr(error))


def _lines(text: str) -> Iterator[str]:
    yield from (line.strip() for line in text.splitlines() if line.strip())


def _without_prefix(key: str) -> str:
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return _without_prefix(key.removeprefix(prefix))
    return key


def _position_codes(shape: tuple[int, ...]) -> Tensor:
    """Sinusoidal position codes (1, length, channels)."""
    _, length, channels = shape
    return SinusoidalPositionalEmbedding(channels, max_seq_length=length).pe

"""State dicts of the authors' networks, under the key names of diffusers' classes.

Only keys that contain `.temporal_transformer.` change. Their object LoRA is `omcm_weights`, their camera LoRA
`cmcm_weights`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

LORA_NAMES = {"omcm_weights": "object", "cmcm_weights": "camera"}

_POSITIONS = re.compile(r"\.attention_blocks\.(\d+)\.pos_encoder\.pe$")


def diffusers_state_dict(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' keys; LoRA keys keep their suffix, with adapter names `object` and `camera`.

    Raises:
        ValueError: the two temporal attentions of a block have different position codes, of which diffusers keeps one.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in official.items():
        new = _diffusers_key(key)
        if new in renamed:
            if not torch.equal(renamed[new], value):
                raise ValueError(f"{key}: differs from the position code of the block's first attention")
            continue
        renamed[new] = value
    return renamed


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """A `.ckpt` of the authors, either the bare state dict or `{"global_step", "state_dict"}`."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get("state_dict", content)


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

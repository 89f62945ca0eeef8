"""The header of a LoRA file in one order, so that equal weights and settings give equal bytes.

peft writes the names of its layers as a set, and safetensors its metadata in an order that changes from run to run.
"""

import json
import struct
from pathlib import Path
from typing import Any

LENGTH = struct.Struct("<Q")  # bytes of the header, at the beginning of a .safetensors file
ALIGNMENT = 8  # bytes; the header is padded with spaces to a multiple
METADATA = "__metadata__"


def order_header(path: Path) -> None:
    """Write the header of a `.safetensors` file again with sorted metadata. The tensors stay where they are."""
    data = path.read_bytes()
    start = LENGTH.size + LENGTH.unpack_from(data)[0]
    header = json.loads(data[LENGTH.size : start])
    metadata = {name: _ordered(text) for name, text in sorted(header.get(METADATA, {}).items())}
    text = json.dumps(header | {METADATA: metadata}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    path.write_bytes(LENGTH.pack(len(text)) + text + data[start:])


def _ordered(text: str) -> str:
    """A text of JSON with sorted keys and sorted lists of names; any other text as it is."""
    try:
        return json.dumps(_sorted(json.loads(text)), sort_keys=True)
    except ValueError:
        return text


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(each) for name, each in value.items()}
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return sorted(value)
    return value

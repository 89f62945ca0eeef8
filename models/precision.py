"""The precision that frozen networks compute in."""

import torch

from models.modes import Precision

DTYPES: dict[Precision, torch.dtype] = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def frozen_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What frozen networks compute in: as asked for on a GPU, float32 on a CPU, which is not faster in less."""
    return DTYPES[precision] if device.type != "cpu" else torch.float32

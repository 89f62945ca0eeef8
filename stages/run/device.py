"""The device that a stage computes on, and the precision of frozen networks there."""

import torch

from stages.params import Precision

DTYPES: dict[Precision, torch.dtype] = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_device() -> torch.device:
    """This process's GPU, with TF32 allowed in products of float32 matrices; the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.device("cuda")


def frozen_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What frozen networks compute in: as asked for on a GPU, float32 on a CPU, which is not faster in less."""
    return DTYPES[precision] if device.type != "cpu" else torch.float32

"""The device that a stage computes on."""

import torch


def best_device() -> torch.device:
    """This process's GPU, with TF32 allowed in products of float32 matrices; the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.device("cuda")

"""Conversion of pictures from floats in 0..1 to bytes."""

import numpy as np
from torch import Tensor


def to_uint8(frames: Tensor) -> np.ndarray:
    """(..., 3, H, W) in 0..1 to (..., H, W, 3) uint8."""
    return (frames.float().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()

"""A caption for a video that has none (Sec 2.2): describe frames at fixed intervals and join the descriptions."""

import numpy as np

from models.estimators import Captioner

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


def describe_clip(frames: np.ndarray, captioner: Captioner) -> str:
    """Descriptions of the first, quarter, half, three-quarter and last frame of (T, H, W, 3), repeats left out."""
    chosen = frames[[round(position * (len(frames) - 1)) for position in POSITIONS]]
    return ", ".join(dict.fromkeys(captioner(chosen)))

"""Frames of the curated clips. Apart from the other arrays, because training reads those without a video decoder."""

from pathlib import Path

import numpy as np

from models.video.read import read_video
from stages.data.shards import read_item
from stages.data.tables import ContractError


def read_clip(path: Path) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of a curated clip.

    Raises:
        ContractError: there is no such clip.
        UnreadableVideo: it is damaged.
    """
    try:
        return read_video(read_item(path))[0]
    except FileNotFoundError:
        raise ContractError(f"{path}: no such clip; run the stage clips again") from None

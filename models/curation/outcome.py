"""What curation says about one video: a clip, or why there is none."""

from dataclasses import dataclass

import numpy as np


class Unusable(ValueError):
    """Raised by a step that a video does not survive; the message is the reason."""


@dataclass
class Facts:
    """What was measured, as far as it got. Sizes and frame rate are the source video's; scenes and frames are indices.

    `scene_end` is exclusive. `fps` is 0 if unknown. `motion_score` is in pixels, see `models.curation.motion`.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    scene_start: int | None = None
    scene_end: int | None = None
    first_frame: int | None = None
    interval: int | None = None
    motion_score: float | None = None


@dataclass
class Clip:
    """frames: (T, H, W, 3) uint8 at the model's size; fps: rate at which they play at the source's speed."""

    frames: np.ndarray
    fps: float
    facts: Facts


@dataclass
class Dropped:
    reason: str
    facts: Facts

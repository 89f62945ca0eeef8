"""What curation says about one video: a clip, or why there is none."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Step = Literal["collect", "decode", "shape", "length", "duplicate", "quality", "camera", "motion", "balance"]


class Unusable(ValueError):
    """Raised by a step that a video does not survive; the message is the reason."""

    def __init__(self, step: Step, reason: str):
        super().__init__(reason)
        self.step: Step = step


@dataclass
class Facts:
    """What was measured, as far as it got. Sizes and frame rate are the source video's; scenes and frames are indices.

    `scene_end` is exclusive. `fps` is 0 if unknown, `frames` counts the whole video. `bars_x`, `bars_y`: pixels of the
    width and height that black bars or blurred fill take. `motion_score` is in pixels, see `models.curation.motion`;
    `brightness`, `black`, `frozen`, `sharpness` are those of `models.curation.quality`, `text_share` is that of
    `models.curation.text`; `pan` to `object_share` are
    those of `models.curation.camera`; `signature` is for `models.curation.duplicates`, `footage` for
    `models.curation.shared_footage`.

    `container` to `start` are those of `models.video.read.SourceFacts`. `even` and `hold` are those of
    `models.curation.pace`; `flaws` counts the damaged parts that were cut out. `clip_fps` is the rate at which the clip
    plays at the source's speed. `treatment` says in words what was done about all that; empty if nothing.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    scene_start: int | None = None
    scene_end: int | None = None
    first_frame: int | None = None
    interval: int | None = None
    clip_fps: float | None = None
    container: str | None = None
    codec: str | None = None
    transfer: str | None = None
    primaries: str | None = None
    interlaced: bool | None = None
    rotation: int | None = None
    mirrored: bool | None = None
    pixel_aspect: float | None = None
    video_streams: int | None = None
    start: float | None = None
    even: bool | None = None
    hold: float | None = None
    flaws: int | None = None
    treatment: str | None = None
    bars_x: int | None = None
    bars_y: int | None = None
    motion_score: float | None = None
    brightness: float | None = None
    black: float | None = None
    frozen: float | None = None
    sharpness: float | None = None
    text_share: float | None = None
    pan: float | None = None
    zoom: float | None = None
    roll: float | None = None
    strength: float | None = None
    object_share: float | None = None
    signature: str | None = None
    footage: str | None = None


class View(NamedTuple):
    """The part of a video's frame that its clip shows, as shares of the frame's width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass
class Clip:
    """frames: (T, H, W, 3) uint8 at the model's size; fps: rate at which they play at the source's speed.

    times: (T,) seconds of the frames in the video, NaN where it does not say.
    """

    frames: np.ndarray
    fps: float
    facts: Facts
    times: np.ndarray
    view: View


@dataclass
class Dropped:
    step: Step
    reason: str
    facts: Facts

"""Cuts by PySceneDetect's ContentDetector, which compares each frame's change with a threshold."""

from collections.abc import Iterable

import cv2
import numpy as np
from scenedetect import ContentDetector, FrameTimecode

FRAME_RATE = 25.0  # of time codes; only frame numbers are used


def load(name: str) -> "ContentCuts":
    return ContentCuts()


class ContentCuts:
    def __call__(self, frames: Iterable[np.ndarray]) -> tuple[list[int], int]:
        """See `CutDetector`. Every cut counts, however short the scene before it."""
        detector, cuts, count = ContentDetector(min_scene_len=1), set(), 0
        for count, frame in enumerate(frames, start=1):
            position = FrameTimecode(count - 1, FRAME_RATE)
            cuts.update(detector.process_frame(position, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)))
        if count:
            cuts.update(detector.post_process(position))
        return sorted(i for i in (cut.frame_num for cut in cuts) if 0 < i < count), count

"""Cuts by PySceneDetect's AdaptiveDetector, which compares each frame's change with the changes around it."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import cv2
import numpy as np
from scenedetect import AdaptiveDetector, FrameTimecode

WINDOW = 2  # frames on each side that the detector looks at; the video's ends are mirrored for it
FRAME_RATE = 25.0  # of time codes; only frame numbers are used


def load(name: str) -> "AdaptiveCuts":
    return AdaptiveCuts()


class AdaptiveCuts:
    def __call__(self, frames: Iterable[np.ndarray]) -> tuple[list[int], int]:
        """See `CutDetector`. Every cut counts, however short the scene before it."""
        detector = AdaptiveDetector(min_scene_len=1, window_width=WINDOW)
        cuts, total = set(), 0
        for total, frame in enumerate(_padded(frames), start=1):
            position = FrameTimecode(total - 1, FRAME_RATE)
            cuts.update(detector.process_frame(position, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)))
        if total:
            cuts.update(detector.post_process(position))
        count = max(0, total - 2 * WINDOW)
        return sorted(i for i in (cut.frame_num - WINDOW for cut in cuts) if 0 < i < count), count


def _padded(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, at both ends with WINDOW more: those next to the end once more, mirrored, as if it went on so."""
    coming = iter(frames)
    first = list(islice(coming, WINDOW + 1))
    yield from _mirrored(first[::-1])[::-1]
    last: deque[np.ndarray] = deque(maxlen=WINDOW + 1)
    for frame in chain(first, coming):
        last.append(frame)
        yield frame
    yield from _mirrored(list(last))


def _mirrored(end: list[np.ndarray]) -> list[np.ndarray]:
    """WINDOW frames to follow on these; none on none."""
    back = end[-2::-1] or end
    return (back + back[-1:] * WINDOW)[:WINDOW]

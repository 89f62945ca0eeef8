"""Optical flow by OpenCV's Dense Inverse Search (Kroeger et al., 2016); needs no weights."""

import cv2
import numpy as np


def load(name: str) -> "DISFlow":
    return DISFlow()


class DISFlow:
    def __init__(self, preset: int = cv2.DISOPTICAL_FLOW_PRESET_FAST):
        self.preset = preset

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """See `FlowEstimator`."""
        cv2.setNumThreads(1)  # DIS cuts the image into one stripe per thread: more threads, another result
        dis = cv2.DISOpticalFlow.create(self.preset)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        flow = [dis.calc(a, b, None) for a, b in zip(grey[:-1], grey[1:], strict=True)]
        return np.stack(flow).transpose(0, 3, 1, 2)

"""The part of a video's frames that a clip shows: between bars, scaled to cover the clip, cropped at the centre."""

from dataclasses import dataclass

import numpy as np

from models.curation.outcome import View
from models.curation.quality import Bars
from models.geometry import CoverCrop, Size, cover_crop


@dataclass(frozen=True)
class Window:
    """How to scale a video's frames, and which part of them is the picture between its bars."""

    scaled: Size
    offset: tuple[int, int]
    crop: CoverCrop

    @classmethod
    def of(cls, frame: Size, bars: Bars, target: Size) -> "Window":
        """For frames of this width and height, to be cropped to `target`."""
        width = frame[0] - round(frame[0] * bars.left) - round(frame[0] * bars.right)
        height = frame[1] - round(frame[1] * bars.top) - round(frame[1] * bars.bottom)
        crop = cover_crop((width, height), target)
        x, y = crop.scaled[0] / width, crop.scaled[1] / height
        scaled = max(crop.scaled[0], round(frame[0] * x)), max(crop.scaled[1], round(frame[1] * y))
        left, top = round(frame[0] * bars.left * x), round(frame[1] * bars.top * y)
        return cls(scaled, (min(left, scaled[0] - crop.scaled[0]), min(top, scaled[1] - crop.scaled[1])), crop)

    @property
    def view(self) -> View:
        """What is left of a frame when it has been cut and cropped."""
        (width, height), (left, top) = self.scaled, np.add(self.offset, self.crop.offset)
        target = self.crop.target
        return View(float(left / width), float(top / height), target[0] / width, target[1] / height)

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """The picture (T, h, w, 3) of frames (T, H, W, 3) that were scaled to `scaled`."""
        (left, top), (width, height) = self.offset, self.crop.scaled
        return frames[:, top : top + height, left : left + width]


def without_bars(bars: Bars, frames: np.ndarray) -> np.ndarray:
    """The picture (T, h, w) between the bars of frames (T, H, W)."""
    height, width = frames.shape[1:]
    rows = slice(round(height * bars.top), height - round(height * bars.bottom))
    columns = slice(round(width * bars.left), width - round(width * bars.right))
    return frames[:, rows, columns]

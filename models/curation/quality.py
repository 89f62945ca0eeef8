"""What a clip looks like, in numbers on which it may be dropped, and the black bars around a picture."""

from dataclasses import dataclass

import cv2
import numpy as np

BLACK = 16.0  # mean grey value at or below which a frame is black
BAR = 22  # grey value that no pixel of a black bar exceeds in any frame
FROZEN = 0.05  # mean difference of grey values below which a frame repeats the one before
MIN_PICTURE = 0.4  # share of each side that must be left between the bars; else it is a dark picture
MIN_BAR = 0.015  # share of a side below which dark rows are no bar


@dataclass(frozen=True)
class Quality:
    """brightness: median over the frames of the mean grey value, 0..255. black, frozen: share of the frames (steps).

    sharpness: median over the frames of the variance of the Laplacian of the grey values, at the clip's size.
    """

    brightness: float
    black: float
    frozen: float
    sharpness: float


def measure_quality(frames: np.ndarray) -> Quality:
    """Measure frames (T, H, W, 3) uint8."""
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(np.float32)
    means = grey.mean((1, 2))
    return Quality(
        brightness=float(np.median(means)),
        black=float((means <= BLACK).mean()),
        frozen=float((np.abs(np.diff(grey, axis=0)).mean((1, 2)) < FROZEN).mean()),
        sharpness=float(np.median([cv2.Laplacian(image, cv2.CV_32F).var() for image in grey])),
    )


@dataclass(frozen=True)
class Bars:
    """Width of the black bars on each side, as shares of the frame's width (left, right) and height (top, bottom)."""

    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    def around(self, inner: "Bars") -> "Bars":
        """These bars together with those of the picture between them."""
        width, height = 1 - self.left - self.right, 1 - self.top - self.bottom
        return Bars(
            self.left + width * inner.left,
            self.right + width * inner.right,
            self.top + height * inner.top,
            self.bottom + height * inner.bottom,
        )


def find_bars(frames: np.ndarray) -> Bars:
    """Bars that are black in all of the grey frames (T, H, W) uint8, with a pixel of margin; none if all is dark."""
    brightest = frames.max(0)
    left, right = _dark_ends(brightest.max(0))
    top, bottom = _dark_ends(brightest.max(1))
    if left + right > 1 - MIN_PICTURE or top + bottom > 1 - MIN_PICTURE:
        return Bars()
    return Bars(left, right, top, bottom)


def _dark_ends(values: np.ndarray) -> tuple[float, float]:
    """Share of `values` at the start and at the end that are dark without a gap, where it is enough for a bar."""
    bright = np.flatnonzero(values > BAR)
    if not len(bright):
        return 1.0, 1.0
    ends = int(bright[0]), len(values) - 1 - int(bright[-1])
    return tuple((end + 1) / len(values) if end >= MIN_BAR * len(values) else 0.0 for end in ends)  # type: ignore[return-value]

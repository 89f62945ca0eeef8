"""The blurred side fill around a picture: an enlarged, blurred copy of the picture itself, in place of black bars."""

import cv2
import numpy as np

from models.curation.quality import MIN_BAR, Bars

LEAST_PICTURE = 0.3  # share of the width that is left between the fills, at least; 9:16 in 16:9 leaves 0.32
SOFT = 0.4  # share of the picture's detail that the fill has, at most
EDGE = 4.0  # grey values, mean over the rows and frames; the step from the fill to the picture, at least
SHARP_EDGE = 3.0  # times the mean step inside the fill, from which a step is the picture's edge
ALIKE = 0.7  # correlation of the fill with the enlarged, blurred picture, at least
UNEQUAL = 2  # pixels of the scanned frame; the fills of both sides may differ by so much in width
BLUR = 0.04  # of the frame's longer side; standard deviation of the blur with which the copy is compared


def find_side_fill(frames: np.ndarray) -> Bars:
    """The blurred fill at both sides, or at top and bottom, of the grey frames (T, H, W) uint8; none if there is none.

    Like `models.curation.quality.find_bars` it leaves a pixel of margin.
    """
    left, right = _fill_of_columns(frames)
    if left:
        return Bars(left=left, right=right)
    top, bottom = _fill_of_columns(frames.swapaxes(1, 2))
    return Bars(top=top, bottom=bottom)


def _fill_of_columns(frames: np.ndarray) -> tuple[float, float]:
    """Shares of the width that fill takes at the left and at the right; zeros if not both sides have it."""
    width = frames.shape[2]
    steps = np.abs(np.diff(frames.astype(np.float32), axis=2)).mean((0, 1))  # between columns x and x + 1
    left, right = _edge(steps), _edge(steps[::-1])
    if left is None or right is None or abs(left - right) > UNEQUAL or left + right > (1 - LEAST_PICTURE) * width:
        return 0.0, 0.0
    picture, sides = frames[:, :, left : width - right], (frames[:, :, :left], frames[:, :, width - right :])
    if max(_detail(side) for side in sides) > SOFT * _detail(picture):
        return 0.0, 0.0
    if max(_likeness(frames, picture, left, right, covers) for covers in (True, False)) < ALIKE:
        return 0.0, 0.0
    return (left + 1) / width, (right + 1) / width


def _edge(steps: np.ndarray) -> int | None:
    """The number of columns before the first clear step, if they are enough for a fill and one is there."""
    least = max(3, round(MIN_BAR * (len(steps) + 1)))
    for place in range(least, len(steps) // 2):
        if steps[place] >= max(EDGE, SHARP_EDGE * steps[: place - 1].mean()):
            further = steps[place : place + 2]  # the edge may be spread over two steps
            return place + 1 + int(further.argmax())
    return None


def _detail(frames: np.ndarray) -> float:
    """Mean size of the differences between neighbours in a column; the frames' edges at the side do not count."""
    return float(np.abs(np.diff(frames.astype(np.float32), n=2, axis=1)).mean())


def _likeness(frames: np.ndarray, picture: np.ndarray, left: int, right: int, covers: bool) -> float:
    """Correlation of the fill with an enlarged, blurred picture, which covers the frame or is stretched to it."""
    height, width = frames.shape[1:]
    ratio = width / picture.shape[2]
    shown, expected = [], []
    for frame, part in zip(frames, picture, strict=True):
        copy = cv2.resize(part, (width, round(height * ratio) if covers else height), interpolation=cv2.INTER_AREA)
        top = (copy.shape[0] - height) // 2
        copy = cv2.GaussianBlur(copy[top : top + height].astype(np.float32), (0, 0), BLUR * max(height, width))
        for columns in (slice(0, left), slice(width - right, width)):
            shown.append(frame[:, columns].ravel())
            expected.append(copy[:, columns].ravel())
    a, b = np.concatenate(shown).astype(np.float32), np.concatenate(expected)
    if a.std() < 1 or b.std() < 1:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])

"""Point tracks by template matching; needs no weights, and shares no step with Lucas-Kanade.

A point is the patch around it in frame 0, where places near it and of its own colour count most. In each new frame the
patch is laid on every place near the last one, and the place wins where the two differ least, with a small price on
distance that decides on flat surfaces. There is no gradient, no pyramid, no previous frame's patch and no fitted camera
motion: what this tracker and Lucas-Kanade agree on is in the video. Nor is a point lost for the same reason: here it is
seen as long as the patch matches in colour, or at least in form, as it does where only contrast fades.
"""

from typing import Any

import cv2
import numpy as np

from models.curation.tracking import inside_frame

PATCH = 7 / 64  # half a patch's side, in frame heights
NEAR = 4 / 64  # standard deviation of a place's weight over its distance from the point, in frame heights
OWN_COLOUR = 25.0  # that over the difference from the point's colour, in grey levels
REACH = 8 / 64  # how far a point may move in one frame, in frame heights
DISTANCE_PRICE = 4.0  # squared grey levels, for a move of `REACH`
LOST = 28.0  # weighted root mean squared difference from frame 0, in grey levels, at which colours match no more ...
FORM = 0.6  # ... and the normalised correlation below which the form does not either


def load(name: str, weights: str | None = None) -> "TemplateMatching":
    if weights is not None:
        raise ValueError("tracks.weights: template takes none; set it to null")
    return TemplateMatching()


class TemplateMatching:
    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PointTracker`."""
        height, width = frames.shape[1:3]
        half, reach = (max(2, round(share * height)) for share in (PATCH, REACH))
        margin, side = half + reach + 1, 2 * half + 1
        padded = [cv2.copyMakeBorder(f, *(margin,) * 4, cv2.BORDER_REPLICATE).astype(np.float32) for f in frames]
        price = DISTANCE_PRICE * _squared_distance(reach) / reach**2
        start = points.astype(np.float32)
        tracks = np.repeat(start[None], len(frames), 0)
        visibility = np.repeat(inside_frame(start, width, height)[None], len(frames), 0)
        for n in np.flatnonzero(visibility[0]):
            x, y = (float(value) + margin for value in start[n])
            patch = cv2.getRectSubPix(padded[0], (side, side), (x, y))
            weights = _weights(patch, NEAR * height)
            for t in range(1, len(frames)):
                centre = np.clip(np.rint(tracks[t - 1, n]), 0, (width - 1, height - 1)).astype(int)
                left, top = centre + margin - reach - half
                window = padded[t][top : top + 2 * reach + side, left : left + 2 * reach + side]
                unlike = cv2.matchTemplate(window, patch, cv2.TM_SQDIFF, mask=np.sqrt(weights))
                move, (row, column) = _lowest(unlike + price)
                tracks[t, n] = centre + move
                found = window[row : row + side, column : column + side]
                visibility[t, n] = unlike[row, column] < LOST**2 or _correlation(patch, found, weights) > FORM
        return tracks, visibility & inside_frame(tracks, width, height)


def _weights(patch: np.ndarray, near: float) -> Any:
    """How much each pixel of a patch (S, S, 3) counts: (S, S, 3) float32 that sum to 1."""
    half = len(patch) // 2
    colour = np.square(patch - patch[half, half]).sum(-1)
    weights = np.exp(-_squared_distance(half) / (2 * near**2)) * (np.exp(-colour / (2 * OWN_COLOUR**2)) + 1e-4)
    return np.repeat((weights / weights.sum() / 3).astype(np.float32)[..., None], 3, -1)


def _squared_distance(reach: int) -> np.ndarray:
    axis = np.arange(-reach, reach + 1)
    return axis[:, None] ** 2 + axis[None] ** 2


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Weighted normalised correlation of two patches, each channel without its own mean; 0 for a flat one."""
    weights = weights / weights.sum((0, 1))
    a, b = (patch - (weights * patch).sum((0, 1)) for patch in (a, b))
    spread = float((weights * a * a).sum() * (weights * b * b).sum())
    return float((weights * a * b).sum()) / spread**0.5 if spread > 1 else 0.0


def _lowest(values: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The move (2,) in pixels to the lowest value, finer than a pixel by a parabola along each axis; its place."""
    row, column = (int(i) for i in np.unravel_index(values.argmin(), values.shape))
    reach = len(values) // 2
    fine = _bottom(values[row], column), _bottom(values[:, column], row)
    return np.array([column - reach + fine[0], row - reach + fine[1]], np.float32), (row, column)


def _bottom(values: np.ndarray, lowest: int) -> float:
    """Where the parabola through the lowest value and its two neighbours has its bottom, from -0.5 to 0.5."""
    if not 0 < lowest < len(values) - 1:
        return 0.0
    before, at, after = values[lowest - 1 : lowest + 2]
    curvature = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature > 0 else 0.0

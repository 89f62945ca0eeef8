"""Point tracks by template matching; needs no weights.

A point is the patch around it in frame 0, where places near it and of its own colour count most. In each new frame the
patch is laid on every place near the last one, and the place wins where the two differ least, with a small price on
distance. As a smooth surface looks alike along whole lines, there is a second candidate: where the point goes with the
camera, by the similarity that most of the dense flow from frame 0 obeys. It is taken unless the match is clearly more
alike. This tracker never matches against the previous frame and has no forward-backward check. A point is visible as
long as its patch matches in colour, or at least in form. The form still matches where only contrast fades.

It is the second opinion beside Lucas-Kanade. The two match points by different methods and lose them by different
rules. The camera's candidate is what they share: both fit a similarity to the scene's motion with
`cv2.estimateAffinePartial2D`, this one to dense flow, the other to its tracks, and both prefer it in doubt. So both can
make the same error where the scene has no texture.
"""

from itertools import product
from typing import Any

import cv2
import numpy as np

from models.estimators.flow_dis import DISFlow
from models.geometry import inside_frame, point_grid

PATCH = 7 / 64  # half a patch's side, in frame heights
NEAR = 4 / 64  # standard deviation of a place's weight over its distance from the point, in frame heights
OWN_COLOUR = 25.0  # that over the difference from the point's colour, in grey levels
REACH = 8 / 64  # how far a point may move in one frame, in frame heights
FINER = (0.5, 0.25, 0.125)  # pixels, steps of the search around the best whole pixel
DISTANCE_PRICE = 4.0  # squared grey levels, for a move of `REACH`
CLEARLY = 2.0, 64.0  # the camera's candidate loses above 2.0 x the match's error + 64 (squared grey levels)
FLOW_HEIGHT = 128  # of the frames that dense flow is found between
FIT_GRID = 20  # points a side whose flow the camera's motion is fitted to
FIT_TOLERANCE = 1 / 128  # of the frame's height, between a point's flow and the camera's motion
MIN_SUPPORT = 8  # points that a camera motion must be fitted to
LOST = 28.0  # weighted root mean squared difference from frame 0, in grey levels, at which colours match no more ...
FORM = 0.6  # ... and the normalised correlation below which the form does not either

AROUND = np.array(sorted(product((-1, 0, 1), repeat=2), key=lambda move: move[0] ** 2 + move[1] ** 2), np.float32)


def load(name: str) -> "TemplateMatching":
    return TemplateMatching()


class TemplateMatching:
    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PointTracker`."""
        height, width = frames.shape[1:3]
        half, reach = (max(2, round(share * height)) for share in (PATCH, REACH))
        margin, side = half + reach + 1, 2 * half + 1
        start = points.astype(np.float32)
        by_camera = _by_camera(frames, start)
        padded = [cv2.copyMakeBorder(f, *(margin,) * 4, cv2.BORDER_REPLICATE).astype(np.float32) for f in frames]
        price = DISTANCE_PRICE * _squared_distance(reach) / reach**2
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
                costs = cv2.matchTemplate(window, patch, cv2.TM_SQDIFF, mask=np.sqrt(weights)) + price
                row, column = np.unravel_index(costs.argmin(), costs.shape)
                place = np.array([column + half, row + half], np.float32)
                for step in FINER:
                    place, found = _nearest(window, patch, weights, place, step)
                tracks[t, n] = centre + place - half - reach
                difference = float((weights * np.square(found - patch)).sum())
                carried = cv2.getRectSubPix(padded[t], (side, side), (by_camera[t, n] + margin).tolist())
                unlike = float((weights * np.square(carried - patch)).sum())
                if unlike <= CLEARLY[0] * difference + CLEARLY[1]:
                    tracks[t, n], found, difference = by_camera[t, n], carried, unlike
                visibility[t, n] = difference < LOST**2 or _correlation(patch, found, weights) > FORM
        return tracks, visibility & inside_frame(tracks, width, height)


def _by_camera(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where points (N, 2) of frame 0 go if they go with the camera: (T, N, 2)."""
    height, width = frames.shape[1:3]
    size = (round(FLOW_HEIGHT * width / height), FLOW_HEIGHT)
    scale = np.array(size) / (width, height)
    smoothly = cv2.INTER_CUBIC if height < FLOW_HEIGHT else cv2.INTER_AREA
    first, *later = (cv2.resize(frame, size, interpolation=smoothly) for frame in frames)
    support = point_grid(width, height, FIT_GRID)
    estimate = DISFlow(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    columns, rows = ((support + 0.5) * scale).astype(int).T
    places, matrix = [points.astype(np.float32)], np.eye(2, 3)
    for frame in later:
        flow = estimate(np.stack([first, frame]))[0][:, rows, columns].T / scale
        inside = inside_frame(support + flow, width, height)
        if inside.sum() >= MIN_SUPPORT:
            found, _ = cv2.estimateAffinePartial2D(
                support[inside], (support + flow)[inside], ransacReprojThreshold=FIT_TOLERANCE * height
            )
            matrix = matrix if found is None else found
        places.append((points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32))
    return np.stack(places)


def _nearest(
    window: np.ndarray, patch: np.ndarray, weights: np.ndarray, place: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of nine places up to a step around `place` (2,), the nearest of those most like the patch; what is there."""
    side = len(patch)
    axis = np.arange(side, dtype=np.float32) - side // 2
    places = place + step * AROUND[:, None, None]
    x, y = np.moveaxis(places + np.stack(np.meshgrid(axis, axis), -1), -1, 0).reshape(2, -1, side)
    found = cv2.remap(window, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, *patch.shape)
    best = int((weights * np.square(found - patch)).sum((1, 2, 3)).argmin())
    return places[best, 0, 0], found[best]


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

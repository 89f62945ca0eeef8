"""How the camera moves in a clip: a similarity fitted to the background between neighbouring frames, and its kind.

The paper asks for a camera-only split and for diverse camera moves (Sec 2.2) without saying how to tell; this does.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

CameraClass = Literal["static", "pan", "zoom", "roll", "complex", "unknown"]

CELLS = (14, 9)  # the best corner of each cell is followed: areas count, not how rich in corners they are
MIN_CORNER = 2e-5  # smallest eigenvalue of the gradients in a window, for grey values in 0..1
MIN_POINTS = 12
BORDER = 3  # pixels of the frame's edge without corners
MAX_ROUND_TRIP = 0.01  # of the frame's height, between a point and its way forward and back
TOLERANCE = 0.006  # of the frame's height: a point this near to where the camera takes it belongs to the background
CENTRE_WEIGHT = 0.4  # of a point at the centre against one at the edge, where background is likelier
STILL_BONUS = 1.1  # a camera at rest wins unless another motion fits this many times better
MAX_UNMEASURED = 0.25  # share of steps without enough points beyond which a clip says nothing about its camera
DOMINANT = 0.65  # share of the whole motion that makes a clip a pan, a zoom or a roll

_LUCAS_KANADE: dict[str, Any] = {
    "winSize": (11, 11),
    "maxLevel": 4,
    "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
}


@dataclass(frozen=True)
class CameraMotion:
    """What the camera does over a clip, each the furthest it gets from frame 0, as a share of the frame's diagonal.

    pan: shift of the centre. zoom, roll: what magnification and rotation move the mean point of the frame by.
    strength: mean distance that all of them together move the points of the frame by.
    object_share: share of the points that do not go with the camera, mean over the steps.
    """

    pan: float
    zoom: float
    roll: float
    strength: float
    object_share: float


def camera_motion(frames: np.ndarray) -> CameraMotion | None:
    """Measure the camera of frames (T, H, W, 3) uint8; None if too little can be followed, as on flat surfaces."""
    height, width = frames.shape[1:3]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    diagonal, centre = float(np.hypot(width, height)), np.array([(width - 1) / 2, (height - 1) / 2])
    field = np.stack(np.meshgrid(np.linspace(0, width - 1, 7), np.linspace(0, height - 1, 5)), -1).reshape(-1, 2)
    field -= centre
    radius = np.linalg.norm(field, axis=1).mean()
    total, states, others, unmeasured = np.eye(3), [], [], 0
    for before, after in zip(grey[:-1], grey[1:], strict=True):
        start, end = _follow(before, after)
        if len(start) < MIN_POINTS:
            unmeasured += 1
            continue
        step, share = _background_step(start - centre, end - centre, height, _edge_weights(start, width, height))
        total = step @ total
        others.append(share)
        scale = np.hypot(total[0, 0], total[1, 0])
        moved = np.linalg.norm(field @ total[:2, :2].T + total[:2, 2] - field, axis=1).mean()
        roll = abs(np.arctan2(total[1, 0], total[0, 0]))
        states.append([np.linalg.norm(total[:2, 2]), abs(np.log(scale)) * radius, roll * radius, moved])
    if not states or unmeasured > MAX_UNMEASURED * (len(frames) - 1):
        return None
    pan, zoom, roll, strength = (float(value) for value in np.max(states, axis=0) / diagonal)
    return CameraMotion(pan, zoom, roll, strength, float(np.mean(others)))


def camera_class(pan: float | None, zoom: float | None, roll: float | None, static_below: float) -> CameraClass:
    """Name a `CameraMotion`: static where no part of it reaches `static_below`, else after the dominant part.

    Args:
        static_below: Share of the frame's diagonal.
    """
    if pan is None or zoom is None or roll is None:
        return "unknown"
    parts: dict[CameraClass, float] = {"pan": pan, "zoom": zoom, "roll": roll}
    name, most = max(parts.items(), key=lambda part: part[1])
    if most < static_below:
        return "static"
    return name if most >= DOMINANT * sum(parts.values()) else "complex"


def _follow(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and end (N, 2) of the best corner of each cell, for those that Lucas-Kanade follows there and back."""
    corners = _corners(before)
    if not len(corners):
        return corners, corners
    forward, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, **_LUCAS_KANADE)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, forward, None, **_LUCAS_KANADE)
    round_trip = np.linalg.norm(back - corners, axis=1)
    good = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (round_trip < max(0.3, MAX_ROUND_TRIP * len(before)))
    return corners[good], forward[good]


def _corners(grey: np.ndarray) -> np.ndarray:
    """The most corner-like pixel (x, y) of each cell, (N, 2) float32, where there is any texture."""
    quality = cv2.cornerMinEigenVal(grey.astype(np.float32) / 255, 5)
    quality[:BORDER], quality[-BORDER:], quality[:, :BORDER], quality[:, -BORDER:] = 0, 0, 0, 0
    columns, rows = CELLS
    height, width = grey.shape[0] // rows, grey.shape[1] // columns
    top, left = (grey.shape[0] - rows * height) // 2, (grey.shape[1] - columns * width) // 2
    inner = quality[top : top + rows * height, left : left + columns * width]
    cells = inner.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(rows * columns, height * width)
    best = cells.argmax(1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([left + column * width + best % width, top + row * height + best // width], 1)
    return places[cells.max(1) > MIN_CORNER].astype(np.float32)


def _edge_weights(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N,) from CENTRE_WEIGHT at the frame's centre to 1 at its edge."""
    out = np.abs(points / np.array([width - 1, height - 1]) * 2 - 1).max(1)
    return CENTRE_WEIGHT + (1 - CENTRE_WEIGHT) * out.clip(0, 1)


def _background_step(start: np.ndarray, end: np.ndarray, height: int, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """The similarity (3, 3) that the background obeys, and the share of points that do not.

    Candidates: no motion; the similarity most points obey (RANSAC); the one most of the others obey. The one that
    the points fit best wins, each counted by its weight and, from 1 to 0, by its distance.
    """
    tolerance = max(0.5, TOLERANCE * height)
    best = np.eye(3)
    error = _error(best, start, end, tolerance)
    score = STILL_BONUS * (weights * (1 - error)).sum()
    left = np.ones(len(start), bool)
    for _ in range(2):
        if left.sum() < MIN_POINTS:
            break
        matrix, _ = cv2.estimateAffinePartial2D(start[left], end[left], ransacReprojThreshold=tolerance)
        if matrix is None or not np.isfinite(matrix).all():
            break
        candidate = np.vstack([matrix, [0, 0, 1]])
        new_error = _error(candidate, start, end, tolerance)
        new_score = (weights * (1 - new_error)).sum()
        if new_score > score:
            best, error, score = candidate, new_error, new_score
        left &= new_error == 1
    return best, float(weights[error == 1].sum() / weights.sum())


def _error(step: np.ndarray, start: np.ndarray, end: np.ndarray, tolerance: float) -> np.ndarray:
    """Squared distance (N,) of each point from where `step` takes it, 1 at `tolerance` and beyond."""
    distance = np.linalg.norm(start @ step[:2, :2].T + step[:2, 2] - end, axis=1)
    return np.square(np.minimum(distance / tolerance, 1.0))

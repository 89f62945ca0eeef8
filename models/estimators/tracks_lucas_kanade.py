"""Point tracks by pyramidal Lucas-Kanade with a forward-backward check; needs no weights.

In each new frame a point has two candidates: where Lucas-Kanade takes it from the previous frame, and where the
camera's motion since frame 0 takes it. That motion is one similarity, fitted by RANSAC to all points Lucas-Kanade
follows, so it does not drift and holds on flat surfaces too. The candidate wins whose surroundings look most like the
point's in frame 0 and in the previous frame; in doubt, the camera's. Few points get a grid of others beside them.

`lucas_kanade` doubts much where a point has no texture of its own: beside a moving object Lucas-Kanade drags smooth
background along, and as such tracks move most, draws by motion intensity would be full of them. `lucas_kanade_lenient`
doubts little everywhere and keeps sight of what changes its looks, for generated videos, where objects blur and fade.
As smooth ground that flickers leads from step to step astray, it also looks for each point right from frame 0.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from models.geometry import inside_frame, point_grid

SUPPORT_GRID = 16
FOLLOWED_HEIGHT = 128  # Lucas-Kanade sees larger frames at a half, a third, ...: faster and no less exact
MIN_SUPPORT = 8  # points that a camera motion must be fitted to
# Lengths are in pixels of a frame 64 high and grow with the frame.
MIN_EIGENVALUE = 1e-4  # of the gradients in a window, in OpenCV's measure; falls with the square of the unit
WINDOW = 4  # Lucas-Kanade compares so far to each side of a point; an even width is faster and more exact
LEAST_WINDOW = 9  # pixels; width of the window, at least: narrower ones are less exact in frames 64 high
NEAR = 0.5  # a point's own texture is looked for so far to each side; frames 64 high are too coarse to have any
TEXTURED = 1e-3  # smallest eigenvalue of the gradients there, for grey values in 0..1, in OpenCV's measure
FIT_TOLERANCE = 0.3
MAX_ROUND_TRIP = 0.5  # between a point and its way forward and back
ANCHOR = 0.6  # share of frame 0, beside the previous frame, in the comparison of surroundings
MOST_UNLIKE = 80.0  # difference that a single place beside the point counts at most; in grey levels over all channels

_SUM = np.ones((1, 3), np.float32)  # over colours
_LUCAS_KANADE: dict[str, Any] = {
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
}


@dataclass(frozen=True)
class MatchRule:
    """When to prefer the camera's candidate, and when a point counts as visible. Differences are in grey levels.

    ratio, margin: the camera's candidate wins if its difference is at most `ratio` x Lucas-Kanade's + `margin`.
    found: a point counts as visible if its difference from frame 0 is below this.
    lost: a point that was followed without a gap stays visible until its difference reaches this.
    """

    ratio: float
    margin: float
    found: float
    lost: float


STRICT = MatchRule(ratio=3.0, margin=8.0, found=40.0, lost=40.0)
LENIENT = MatchRule(ratio=1.0, margin=1.0, found=60.0, lost=MOST_UNLIKE)


def load(name: str) -> "LucasKanade":
    return LucasKanade(lenient=name == "lucas_kanade_lenient")


class LucasKanade:
    def __init__(self, lenient: bool):
        self.lenient = lenient
        self.doubt = LENIENT if lenient else STRICT

    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PointTracker`."""
        height, width = frames.shape[1:3]
        start = points.astype(np.float32)
        if len(start) < SUPPORT_GRID**2:
            start = np.concatenate([start, point_grid(width, height, SUPPORT_GRID)])
        frames = np.ascontiguousarray(frames)
        small = [_shrunk(frame) for frame in frames]
        scale = np.array([width / small[0].shape[1], height / small[0].shape[0]], np.float32)
        offsets = _offsets(frames[0])
        origin = recent = Surroundings.of(_colours(frames[0], start, offsets), offsets)
        tracks, visibility = [start], [inside_frame(start, width, height)]
        for t in range(1, len(frames)):
            previous, seen = tracks[-1], visibility[-1]
            followed, trusted = _follow(small[t - 1], small[t], previous, scale)
            looks = _colours(frames[t], followed, offsets)
            if self.lenient:
                refound, sure = _follow(small[0], small[t], start, scale, guess=followed)
                looks_refound = _colours(frames[t], refound, offsets)
                sure &= ~trusted | (origin.difference(looks_refound) <= origin.difference(looks))
                followed, trusted = np.where(sure[:, None], refound, followed), trusted | sure
                looks = np.where(sure[:, None, None], looks_refound, looks)
            textured = _textured(small[t - 1], previous, scale)
            ratio, margin, lost = (
                np.where(textured, getattr(LENIENT, name), getattr(self.doubt, name))
                for name in ("ratio", "margin", "lost")
            )
            by_camera = _camera_motion(start, followed, trusted & seen, FIT_TOLERANCE * _unit(frames[0]))
            places, change = followed, origin.difference(looks)
            if by_camera is not None:
                looks_camera = _colours(frames[t], by_camera, offsets)
                change_camera = origin.difference(looks_camera)
                unlike_camera = ANCHOR * change_camera + (1 - ANCHOR) * recent.difference(looks_camera)
                unlike_followed = ANCHOR * change + (1 - ANCHOR) * recent.difference(looks)
                doubtful = unlike_camera - margin <= ratio * unlike_followed
                camera_wins = ~trusted | doubtful
                trusted &= ~camera_wins
                places = np.where(camera_wins[:, None], by_camera, followed)
                change = np.where(camera_wins, change_camera, change)
                looks = np.where(camera_wins[:, None, None], looks_camera, looks)
            alike = (change < self.doubt.found) | (trusted & seen & (change < lost))
            tracks.append(places)
            visibility.append(alike & inside_frame(places, width, height))
            recent = Surroundings.of(looks, offsets)
        return np.stack(tracks)[:, : len(points)], np.stack(visibility)[:, : len(points)]


@dataclass(frozen=True)
class Surroundings:
    """What the K places around each of N points look like, and how much each counts: near ones of its colour most.

    colours (N, K, 3) uint8, weights (N, K) float32 that sum to 1.
    """

    colours: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, colours: np.ndarray, offsets: np.ndarray) -> "Surroundings":
        """colours: (N, K, 3) uint8, at the places `offsets` (K, 2) from each point, the middle one at the point."""
        own = np.ascontiguousarray(np.broadcast_to(colours[:, len(offsets) // 2, None], colours.shape))
        apart = cv2.absdiff(colours, own).astype(np.float32)
        near = -np.square(offsets / offsets.max() * (8 / 5)).sum(-1) / 2
        weights = np.exp(near) * (np.exp(np.einsum("nkc,nkc->nk", apart, apart) / (-2 * 40**2)) + 1e-4)
        return cls(colours, (weights / weights.sum(1, keepdims=True)).astype(np.float32))

    def difference(self, colours: np.ndarray) -> np.ndarray:
        """How unlike other surroundings (N, K, 3) uint8 are: (N,) in 0..MOST_UNLIKE."""
        apart = cv2.transform(cv2.absdiff(colours, self.colours), _SUM).reshape(self.weights.shape)  # above 255: 255
        return np.einsum("nk,nk->n", self.weights, np.minimum(apart, MOST_UNLIKE).astype(np.float32))


def _offsets(frame: np.ndarray) -> np.ndarray:
    """Where surroundings are compared: (81, 2) pixels from a point; the side is a quarter of the frame height."""
    axis = np.linspace(-8, 8, 9, dtype=np.float32) * _unit(frame)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def _colours(frame: np.ndarray, points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, K, 3) uint8 of a frame (H, W, 3) at places (K, 2) beside points (N, 2)."""
    places = points[:, None] + offsets
    x, y = np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _shrunk(frame: np.ndarray) -> np.ndarray:
    """The frame at a whole part of its size, at least FOLLOWED_HEIGHT high."""
    parts = max(1, frame.shape[0] // FOLLOWED_HEIGHT)
    return cv2.resize(frame, (frame.shape[1] // parts, frame.shape[0] // parts), interpolation=cv2.INTER_AREA)


def _follow(
    before: np.ndarray, after: np.ndarray, points: np.ndarray, scale: np.ndarray, guess: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lucas-Kanade from one frame to another: places (N, 2), and whether the way back agrees (N,).

    In colour, as things may differ from their ground in nothing else. Points that it cannot follow stay where they are.

    Args:
        before, after: Frames `scale` (width, height) times smaller than those that `points` lie in.
        guess: Where to begin looking (N, 2); None where they were.
    """
    unit = _unit(before)
    side = max(LEAST_WINDOW, 2 * round(WINDOW * unit))
    options = {"winSize": (side, side), "minEigThreshold": MIN_EIGENVALUE / unit**2, **_LUCAS_KANADE}
    start = _scaled(points, 1 / scale)
    forward, there = None, None
    if guess is not None:
        options["flags"] = cv2.OPTFLOW_USE_INITIAL_FLOW
        forward, there = _scaled(guess, 1 / scale), start.copy()
    forward, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, forward, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, forward, there, **options)
    round_trip = np.linalg.norm(back - start, axis=-1)
    trusted = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (round_trip < MAX_ROUND_TRIP * unit)
    places = _scaled(forward, scale)
    return np.where(trusted[:, None], places, points), trusted


def _textured(frame: np.ndarray, points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Whether each of the points (N, 2) has texture of its own, in a frame `scale` times smaller than theirs."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    texture = cv2.cornerMinEigenVal(grey, 2 * round(NEAR * _unit(frame)) + 1)
    places = _scaled(points, 1 / scale)[:, None]
    return cv2.remap(texture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0] > TEXTURED


def _scaled(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Pixel positions (N, 2) in the same picture at `scale` (width, height) times the size."""
    return ((points + 0.5) * scale - 0.5).astype(np.float32)


def _unit(frame: np.ndarray) -> float:
    """A length of one pixel in a frame 64 high, in pixels of this one."""
    return max(1.0, frame.shape[0] / 64)


def _camera_motion(start: np.ndarray, places: np.ndarray, usable: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Where the similarity that most of the usable points obey takes all of `start`; None if there is none."""
    if usable.sum() < MIN_SUPPORT:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(start[usable], places[usable], ransacReprojThreshold=tolerance)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return (start @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)

"""How cameras and things move in picture scenes: paths that start at rest, drawn from a generator.

Lengths are in frame heights, angles in radians.
"""

from typing import Any

import numpy as np

from models.scenes import ASPECT, Kind

MOVING_SHARE = 0.75  # of a scene's things, apart from the first, which moves
OBJECT_SPEED = (0.015, 0.065)  # frame heights a frame
TURN_SHARE, TURN_SPEED = 0.35, 0.07  # radians a frame, at most
GROW_SHARE, GROW_SPEED = 0.3, 0.035  # log units a frame, at most
PAN_SHARE, PAN_SPEED = 0.65, (0.008, 0.045)
ZOOM_SHARE, ZOOM_LIMIT = 0.4, 0.4
ROLL_SHARE, ROLL_SPEED = 0.2, 0.03
SHAKE_SHARE, SHAKE = 0.2, 0.006  # frame heights, standard deviation
DRIFT_SHARE, DRIFT = 0.2, 0.08  # of brightness, over the whole video, at most


def camera_path(rng: np.random.Generator, kind: Kind, frames: int) -> np.ndarray:
    """(T, 4): pan x, pan y, log zoom, roll; zero in frame 0, and throughout for `object`."""
    camera = np.zeros((frames, 4))
    if kind == "object":
        return camera
    if rng.random() < PAN_SHARE:
        camera[:, :2] = path(rng, frames, rng.uniform(*PAN_SPEED))
    if rng.random() < ZOOM_SHARE:
        rate = rng.uniform(0.015, 0.055) * rng.choice([-1, 1])
        camera[:, 2] = ZOOM_LIMIT * np.sin(np.arange(frames) * rate / ZOOM_LIMIT)
    if rng.random() < ROLL_SHARE or not camera.any():
        camera[:, 3] = np.arange(frames) * rng.uniform(0.25, 1) * ROLL_SPEED * rng.choice([-1, 1])
    if rng.random() < SHAKE_SHARE:
        camera[1:, :2] += rng.normal(0, SHAKE, (frames - 1, 2))
    return camera


def things_paths(rng: np.random.Generator, kind: Kind, frames: int, start: np.ndarray, movers: int) -> tuple[Any, ...]:
    """Centres (K, T, 2), angles (K, T) and log scales (K, T) of K things that start at `start` (K, 2)."""
    count = len(start)
    centres = np.repeat(start[:, None], frames, 1)
    angles = np.repeat(rng.uniform(-0.3, 0.3, (count, 1)), frames, 1)
    growth = np.zeros((count, frames))
    if kind == "camera":
        return centres, angles, growth
    moving = rng.random(count) < MOVING_SHARE
    moving[0] = True
    time = np.arange(frames)
    for k in range(min(count, movers)):
        if moving[k]:
            moved = start[k] + path(rng, frames, rng.uniform(*OBJECT_SPEED))
            centres[k] = bounce(moved, np.array([ASPECT / 2 - 0.1, 0.4]))
            if rng.random() < TURN_SHARE:
                angles[k] += time * rng.uniform(-TURN_SPEED, TURN_SPEED)
            if rng.random() < GROW_SHARE:
                growth[k] = time * rng.uniform(-GROW_SPEED, GROW_SPEED)
    return centres, angles, growth


def light_path(rng: np.random.Generator, frames: int) -> np.ndarray:
    """(T,): by how much a frame's brightness is multiplied; 1 in frame 0."""
    if rng.random() >= DRIFT_SHARE:
        return np.ones(frames)
    return 1 + rng.uniform(-DRIFT, DRIFT) * np.arange(frames) / max(1, frames - 1)


def seen_box(camera: np.ndarray) -> np.ndarray:
    """(2, 2): the corners of what a camera (T, 4) sees of the world in all its frames."""
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * (ASPECT / 2, 0.5)
    cos, sin = np.cos(camera[:, 3]), np.sin(camera[:, 3])
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)  # (T, 2, 2)
    seen = np.einsum("tij,cj->tci", turn, corners) / np.exp(camera[:, None, 2:3]) + camera[:, None, :2]
    return np.stack([seen.min((0, 1)), seen.max((0, 1))])


def scattered(rng: np.random.Generator, count: int) -> np.ndarray:
    """Start centres (K, 2) inside the first frame that do not overlap much: the widest apart of a dozen draws."""
    best, best_gap = np.zeros((count, 2)), -np.inf
    for _ in range(12):
        centres = rng.uniform(-1, 1, (count, 2)) * (ASPECT / 2 - 0.15, 0.33)
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 9 * np.eye(count)
        if gaps.min() > best_gap:
            best, best_gap = centres, gaps.min()
    return best


def path(rng: np.random.Generator, frames: int, speed: float) -> np.ndarray:
    """A displacement (T, 2) that starts at 0: straight, curved, or there and back; faster and slower at times."""
    time = np.arange(frames - 1)
    form = rng.choice(["straight", "curve", "return"], p=[0.5, 0.35, 0.15])
    angle = rng.uniform(0, 2 * np.pi) + (rng.uniform(-0.35, 0.35) * time if form == "curve" else 0 * time)
    pace = np.clip(1 + rng.uniform(-0.6, 0.6) * (2 * time / max(1, frames - 2) - 1), 0, None)
    if form == "return":
        pace = pace * np.where(time < rng.uniform(0.4, 0.7) * frames, 1, -1)
    return np.concatenate([np.zeros((1, 2)), (speed * pace * np.stack([np.cos(angle), np.sin(angle)])).T.cumsum(0)])


def bounce(track: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Reflect a path (T, 2) at +-limit (2,)."""
    folded = np.mod(track + limit, 4 * limit)
    return np.where(folded > 2 * limit, 4 * limit - folded, folded) - limit

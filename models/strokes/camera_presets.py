"""Camera moves by name, as four strokes around the middle of the picture."""

from typing import Literal, get_args

import numpy as np

CameraMove = Literal[
    "static",
    "pan_left",
    "pan_right",
    "pan_up",
    "pan_down",
    "zoom_in",
    "zoom_out",
    "roll_clockwise",
    "roll_anticlockwise",
    "orbit_left",
    "orbit_right",
]
CAMERA_MOVES: tuple[CameraMove, ...] = get_args(CameraMove)
ARC_POINTS = 9
TILT = 0.4  # height of the ellipse on which a camera that looks down on a turntable sees a circle
PANS = {"pan_left": (-1, 0), "pan_right": (1, 0), "pan_up": (0, -1), "pan_down": (0, 1)}
ZOOMS = {"zoom_in": 1, "zoom_out": -1}
TURNS = {
    "roll_clockwise": (1, 1.0),
    "roll_anticlockwise": (-1, 1.0),
    "orbit_left": (1, TILT),
    "orbit_right": (-1, TILT),
}


def camera_strokes(move: CameraMove, amount: float, width: int, height: int) -> list[np.ndarray]:
    """Four strokes (P, 2) in pixels; a move is named after what the picture does, as in the paper.

    Args:
        move: `pan_up` moves the picture up, `zoom_in` enlarges it, `orbit_left` turns the ground so that what is near
            goes left and what is far goes right.
        amount: length of each stroke in pixels of the canvas over the whole video; along its arc for rolls, about so
            for orbits.
        width, height: of the canvas.

    Raises:
        ValueError: the move is unknown, the amount is negative or not finite, or `zoom_out` would cross the middle.
    """
    if move not in CAMERA_MOVES:
        raise ValueError(f"move: {move!r} is unknown; use one of {', '.join(CAMERA_MOVES)}")
    if not 0 <= amount < np.inf:
        raise ValueError(f"amount: must be a number of pixels from 0 up, got {amount}")
    middle = np.array([width - 1, height - 1]) / 2
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)]) * np.array([width, height]) / 4
    radius = float(np.hypot(*corners[0]))
    if move == "zoom_out" and amount >= radius:
        raise ValueError(f"amount: zoom_out must stay below {radius:g} pixels on this canvas, got {amount}")
    return [middle + _path(move, amount, corner, radius) for corner in corners]


def _path(move: CameraMove, amount: float, corner: np.ndarray, radius: float) -> np.ndarray:
    """Points (P, 2) of one stroke that starts at `corner`, seen from the middle."""
    if move in PANS:
        return np.stack([corner, corner + amount * np.array(PANS[move])])
    if move in ZOOMS:
        return np.stack([corner, corner * (1 + ZOOMS[move] * amount / radius)])
    if move in TURNS:
        direction, tilt = TURNS[move]
        x, y = corner[0], corner[1] / tilt
        angle = np.linspace(0, direction * amount / np.hypot(y, tilt * x), ARC_POINTS)
        return np.stack([x * np.cos(angle) - y * np.sin(angle), (x * np.sin(angle) + y * np.cos(angle)) * tilt], -1)
    return corner[None]

"""Camera moves by name, as trajectories of four strokes around the middle of the picture."""

import numpy as np

from models.trajectories import Stroke, Trajectories

ARC_POINTS = 9
PANS = {"pan_left": (-1, 0), "pan_right": (1, 0), "pan_up": (0, -1), "pan_down": (0, 1)}
ZOOMS = {"zoom_in": 1, "zoom_out": -1}
ROLLS = {"roll_clockwise": 1, "roll_anticlockwise": -1}
CAMERA_PRESETS = ("static", *PANS, *ZOOMS, *ROLLS)


def camera_preset(name: str, amount: float, width: int, height: int) -> Trajectories:
    """Four strokes for one camera move; a move is named after what the picture does, as in the paper.

    Args:
        name: one of `CAMERA_PRESETS`. `pan_up` moves the picture up, `zoom_in` enlarges it.
        amount: length of each stroke in pixels of the canvas; along its circle for a roll.
        width, height: of the canvas.

    Raises:
        ValueError: the name is unknown, the amount is negative or not finite, or `zoom_out` would cross the middle.
    """
    if name not in CAMERA_PRESETS:
        raise ValueError(f"camera preset {name!r}: unknown; use one of {', '.join(CAMERA_PRESETS)}")
    if not 0 <= amount < np.inf:
        raise ValueError(f"amount: must be a number of pixels from 0 up, got {amount}")
    middle = np.array([width - 1, height - 1]) / 2
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)]) * np.array([width, height]) / 4
    radius = float(np.hypot(*corners[0]))
    if name == "zoom_out" and amount >= radius:
        raise ValueError(f"amount: zoom_out must stay below {radius:g} pixels on this canvas, got {amount}")
    strokes = [middle + _path(name, amount, corner, radius) for corner in corners]
    return Trajectories(width, height, tuple(Stroke(points, np.linspace(0, 1, len(points))) for points in strokes))


def _path(name: str, amount: float, corner: np.ndarray, radius: float) -> np.ndarray:
    """Points (P, 2) of one stroke that starts at `corner`, seen from the middle."""
    if name in PANS:
        return np.stack([corner, corner + amount * np.array(PANS[name])])
    if name in ZOOMS:
        return np.stack([corner, corner * (1 + ZOOMS[name] * amount / radius)])
    if name in ROLLS:
        angle = ROLLS[name] * amount / radius * np.linspace(0, 1, ARC_POINTS)
        x, y = corner
        return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)
    return corner[None]

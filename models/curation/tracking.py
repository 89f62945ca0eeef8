"""Tracking (Sec 2.2, step 4): which points are followed, and how far each track moves."""

import numpy as np


def point_grid(width: int, height: int, grid: int) -> np.ndarray:
    """Centres (grid * grid, 2) float32 of `grid` x `grid` equal cells of the frame, row by row, in pixels."""
    x = (np.arange(grid) + 0.5) * width / grid - 0.5
    y = (np.arange(grid) + 0.5) * height / grid - 0.5
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)


def track_steps(tracks: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Displacements (T - 1, N, 2) between adjacent frames, in pixels; zero where either end is invisible.

    Args:
        tracks: (T, N, 2) pixels.
        visibility: (T, N) bool.
    """
    return np.diff(tracks, axis=0) * (visibility[1:] & visibility[:-1])[..., None]


def inside_frame(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whether each of the pixel positions (..., 2) lies within the frame's outer edges."""
    x, y = points[..., 0], points[..., 1]
    return (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)

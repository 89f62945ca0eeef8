"""Trajectories drawn over frames, side-by-side panels and contact sheets."""

from collections.abc import Sequence

import cv2
import numpy as np

COLOURS = ((255, 64, 64), (64, 160, 255), (255, 200, 0), (64, 220, 120), (220, 100, 255), (255, 140, 0))
LABEL_HEIGHT = 18


def draw_tracks(frames: np.ndarray, tracks: np.ndarray, scale: int = 3) -> np.ndarray:
    """Enlarge frames and draw the wanted trajectories: the whole path thin, the part passed so far thick.

    Args:
        frames: (T, H, W, 3) uint8.
        tracks: (T, N, 2) pixels of those frames.

    Returns:
        (T, scale H, scale W, 3) uint8.
    """
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    large = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
    paths = np.rint((tracks + 0.5) * scale).astype(np.int32)
    for t, frame in enumerate(large):
        for n in range(paths.shape[1]):
            colour = COLOURS[n % len(COLOURS)]
            path = np.ascontiguousarray(paths[:, n])
            cv2.polylines(frame, [path], False, colour, 1, cv2.LINE_AA)
            cv2.polylines(frame, [path[: t + 1]], False, colour, 2, cv2.LINE_AA)
            cv2.circle(frame, path[t].tolist(), 4, colour, -1, cv2.LINE_AA)
            cv2.circle(frame, path[t].tolist(), 4, (255, 255, 255), 1, cv2.LINE_AA)
    return large


def side_by_side(panels: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Videos (T, H, W, 3) of one size beside each other, each under its label."""
    named = []
    for panel, label in zip(panels, labels, strict=True):
        strip = np.full((LABEL_HEIGHT, panel.shape[2], 3), 255, np.uint8)
        cv2.putText(strip, label, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
        header = np.broadcast_to(strip, (len(panel), *strip.shape))
        named.append(np.pad(np.concatenate([header, panel], 1), ((0, 0), (0, 0), (2, 2), (0, 0)), constant_values=255))
    return np.concatenate(named, 2)


def contact_sheet(videos: Sequence[np.ndarray], columns: int = 5) -> np.ndarray:
    """One row per video (T, H, W, 3), `columns` of its frames from first to last: (H', W', 3)."""
    rows = []
    for video in videos:
        chosen = np.linspace(0, len(video) - 1, min(columns, len(video))).round().astype(int)
        rows.append(np.concatenate([np.pad(video[t], ((1, 1), (1, 1), (0, 0))) for t in chosen], 1))
    return np.concatenate(rows, 0)

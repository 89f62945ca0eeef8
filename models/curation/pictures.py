"""Pictures for the report of curation: strips of frames, tracks over frames, draws with their flow maps."""

import math

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.utils import flow_to_image

from models.curation.sparse import NO_TRACK
from models.denoising.flow_maps import flow_map
from models.drawing import COLOURS

STRIP_FRAMES = 3
STRIP_HEIGHT = 120
PANEL_HEIGHT = 192
TRACK_FRAMES = 4
EVERY = 2


def strip(frames: np.ndarray) -> Image.Image:
    """First, middle and last frame of (T, H, W, 3) uint8 beside each other."""
    chosen = np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int)
    return Image.fromarray(np.concatenate([_scaled(frames[t], STRIP_HEIGHT) for t in chosen], 1))


def pair_sheet(one: np.ndarray, other: np.ndarray) -> Image.Image:
    """Two frames (H, W, 3) uint8 of any size beside each other."""
    return Image.fromarray(np.concatenate([_scaled(frame, PANEL_HEIGHT) for frame in (one, other)], 1))


def tracks_sheet(frames: np.ndarray, tracks: np.ndarray, visibility: np.ndarray) -> Image.Image:
    """A few frames with every EVERYth point of the grid and its way so far, coloured by row of the grid.

    Args:
        frames: (T, H, W, 3) uint8.
        tracks: (T, grid * grid, 2) pixels of the frames, row by row.
        visibility: (T, grid * grid) bool; what is invisible is not drawn.
    """
    grid = math.isqrt(tracks.shape[1])
    scale = PANEL_HEIGHT / frames.shape[1]
    panels = []
    for t in np.linspace(0, len(frames) - 1, TRACK_FRAMES).round().astype(int):
        panel = _scaled(frames[t], PANEL_HEIGHT)
        for index in range(tracks.shape[1]):
            row, column = divmod(index, grid)
            if row % EVERY or column % EVERY or not visibility[t, index]:
                continue
            colour = COLOURS[row // EVERY % len(COLOURS)]
            path = _scaled_path(tracks[: t + 1, index][visibility[: t + 1, index]], scale)
            cv2.polylines(panel, [path], False, colour, 1, cv2.LINE_AA)
            cv2.circle(panel, path[-1].tolist(), 2, colour, -1, cv2.LINE_AA)
        panels.append(panel)
    return Image.fromarray(np.concatenate(panels, 1))


def draws_sheet(frame: np.ndarray, tracks: np.ndarray, visibility: np.ndarray, draws: np.ndarray) -> Image.Image:
    """For each draw, above the frame with its tracks, below their flow map summed over time.

    Args:
        frame: (H, W, 3) uint8, the clip's first.
        tracks, visibility: of the clip, (T, N, 2) pixels and (T, N).
        draws: (draws, max_tracks) indices, filled up with NO_TRACK.
    """
    height, width = frame.shape[:2]
    scale = PANEL_HEIGHT / height
    columns = []
    for draw in draws:
        chosen = draw[draw != NO_TRACK]
        panel = _scaled(frame, PANEL_HEIGHT)
        for number, index in enumerate(chosen):
            path = _scaled_path(tracks[visibility[:, index], index], scale)
            colour = COLOURS[number % len(COLOURS)]
            cv2.polylines(panel, [path], False, colour, 2, cv2.LINE_AA)
            cv2.circle(panel, path[-1].tolist(), 4, colour, -1, cv2.LINE_AA)
        maps = flow_map(
            torch.from_numpy(tracks[None][:, :, chosen]),
            torch.from_numpy(visibility[None][:, :, chosen]),
            height,
            width,
        )
        colours = flow_to_image(maps[0].sum(1)).permute(1, 2, 0).numpy()
        columns.append(np.concatenate([panel, _scaled(colours, PANEL_HEIGHT)], 0))
    return Image.fromarray(np.concatenate(columns, 1))


def _scaled(image: np.ndarray, height: int) -> np.ndarray:
    width = round(image.shape[1] * height / image.shape[0])
    shrinks = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _scaled_path(points: np.ndarray, scale: float) -> np.ndarray:
    return np.rint((points + 0.5) * scale).astype(np.int32)

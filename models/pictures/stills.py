"""Still pictures of the frame's size: what the codec is fitted to, and what it is measured on."""

import cv2
import numpy as np
import torch
from torch import Tensor

from models.pictures.album import Album
from models.pictures.pieces import MAX_ENLARGED


def random_stills(album: Album, count: int, width: int, height: int, seed: int) -> Tensor:
    """(count, 3, H, W) in 0..1: crops at any place and scale of the photographs, scaled down by area."""
    rng = np.random.default_rng(seed)
    stills = []
    for _ in range(count):
        pixels = album.pixels(album.photographs[int(rng.integers(len(album.photographs)))])
        largest = min(pixels.shape[1] / width, pixels.shape[0] / height)
        scale = largest ** rng.random() if largest > 1 else largest
        span = np.minimum([round(width * scale), round(height * scale)], pixels.shape[1::-1])
        left, top = (int(rng.integers(0, room + 1)) for room in np.array(pixels.shape[1::-1]) - span)
        part = pixels[top : top + span[1], left : left + span[0]]
        stills.append(_resized(part[:, ::-1] if rng.random() < 0.5 else part, width, height))
    return _stacked(stills)


def whole_stills(album: Album, width: int, height: int) -> Tensor:
    """(pictures, 3, H, W) in 0..1: every photograph as a user gives it, scaled to cover the frame and cropped."""
    stills = []
    for picture in album.photographs:
        pixels = album.pixels(picture)
        scale = min(pixels.shape[1] / width, pixels.shape[0] / height)
        span = [min(round(width * scale), pixels.shape[1]), min(round(height * scale), pixels.shape[0])]
        left, top = (pixels.shape[1] - span[0]) // 2, (pixels.shape[0] - span[1]) // 2
        stills.append(_resized(pixels[top : top + span[1], left : left + span[0]], width, height))
    return _stacked(stills)


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    method = cv2.INTER_AREA if pixels.shape[1] * MAX_ENLARGED > width else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=method)


def _stacked(stills: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(stills)).permute(0, 3, 1, 2).float() / 255

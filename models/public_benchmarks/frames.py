"""Pictures and masks in a benchmark's folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models.geometry import Size, cover_crop
from models.public_benchmarks.case import BenchmarkDataError

PICTURES = (".jpg", ".jpeg", ".png")


def pictures_of(folder: Path) -> list[Path]:
    """The pictures in a folder, by name.

    Raises:
        BenchmarkDataError: there are none.
    """
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise BenchmarkDataError(f"{folder}: no frames (.jpg, .png)")
    return found


def read_frame(path: Path, size: Size | None = None) -> Image.Image:
    """A picture as RGB; scaled to cover `size` and cropped to its middle, if given.

    Raises:
        BenchmarkDataError: it is missing or unreadable.
    """
    try:
        with Image.open(path) as picture:
            image = picture.convert("RGB")
    except FileNotFoundError:
        raise BenchmarkDataError(f"{path}: no such file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise BenchmarkDataError(f"{path}: not a readable picture") from None
    return image if size is None else cover_crop(image.size, size).image(image)


def stacked(pictures: Sequence[Image.Image], name: Path) -> np.ndarray:
    """Frames (T, H, W, 3) uint8.

    Raises:
        BenchmarkDataError: their sizes differ.
    """
    if len({picture.size for picture in pictures}) > 1:
        raise BenchmarkDataError(f"{name}: frames of different sizes")
    return np.stack([np.asarray(picture) for picture in pictures])


def read_labels(path: Path, size: Size) -> np.ndarray:
    """Labels (H, W) of a mask, at `size` by nearest neighbours: 0 is background, each object has a number of its own.

    A palette's indices are the labels; in a picture of colours, each colour but black is an object.

    Raises:
        BenchmarkDataError: it is missing or unreadable.
    """
    try:
        with Image.open(path) as picture:
            mask = picture if picture.mode in ("P", "L", "1") else picture.convert("RGB")
            mask.load()
    except FileNotFoundError:
        raise BenchmarkDataError(f"{path}: no such file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise BenchmarkDataError(f"{path}: not a readable mask") from None
    crop = cover_crop(mask.size, size)
    (left, top), (width, height) = crop.offset, crop.target
    scaled = mask.resize(crop.scaled, Image.Resampling.NEAREST).crop((left, top, left + width, top + height))
    labels = np.asarray(scaled).astype(np.int64)
    return labels if labels.ndim == 2 else labels @ np.array([65536, 256, 1])


def labels_at(labels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The labels (N,) of (H, W) at pixel positions (N, 2); 0 outside."""
    height, width = labels.shape
    x, y = np.rint(np.nan_to_num(points, nan=-1.0)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return np.where(inside, labels[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)], 0)

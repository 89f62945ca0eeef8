"""Geometry of the frame: scale to cover and centre crop, the grid of points, what lies inside. Sizes are in pixels."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class CoverCrop:
    """Scale `source` to `scaled`, which covers `target`, then cut `target` out of its middle. Sizes in pixels."""

    source: Size
    scaled: Size
    target: Size

    @property
    def offset(self) -> tuple[int, int]:
        """Pixels cut off at the left and at the top, after scaling."""
        return (self.scaled[0] - self.target[0]) // 2, (self.scaled[1] - self.target[1]) // 2

    def crop(self, frames: np.ndarray) -> np.ndarray:
        """Cut already scaled frames (..., H, W, 3)."""
        (left, top), (width, height) = self.offset, self.target
        return frames[..., top : top + height, left : left + width, :]

    def image(self, image: Image.Image) -> Image.Image:
        """Scale and cut a picture of the source's size."""
        (left, top), (width, height) = self.offset, self.target
        return image.resize(self.scaled, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Take pixel positions (..., 2) from the source to the target; they may fall outside it."""
        scale = np.array(self.scaled) / np.array(self.source)
        return (np.asarray(points) + 0.5) * scale - 0.5 - np.array(self.offset)

    def describe(self) -> str:
        """What was cropped, in the source's pixels; empty if nothing was."""
        sides = [
            round((scaled - target) * source / scaled)
            for source, scaled, target in zip(self.source, self.scaled, self.target, strict=True)
        ]
        return ", ".join(f"{n} pixels of the {name}" for n, name in zip(sides, ("width", "height"), strict=True) if n)


def cover_crop(source: Size, target: Size) -> CoverCrop:
    """The smallest scaling of `source` that covers `target`, and the centre crop to it."""
    scale = max(target[0] / source[0], target[1] / source[1])
    scaled = (max(target[0], round(source[0] * scale)), max(target[1], round(source[1] * scale)))
    return CoverCrop(source, scaled, target)


def point_grid(width: int, height: int, grid: int) -> np.ndarray:
    """Centres (grid * grid, 2) float32 of `grid` x `grid` equal cells of the frame, row by row, in pixels."""
    x = (np.arange(grid) + 0.5) * width / grid - 0.5
    y = (np.arange(grid) + 0.5) * height / grid - 0.5
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)


def inside_frame(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whether each of the pixel positions (..., 2) lies within the frame's outer edges."""
    x, y = points[..., 0], points[..., 1]
    return (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)

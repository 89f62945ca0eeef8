"""MagicBench (MagicMotion, Li et al. 2025), as published.

    videos/<id>.mp4   masks/<id>/annotated_frame_00000.png   boxs/<id>/…   <name>.csv with captions

`boxs` is not needed, and folders may lie deeper. A mask shows each object in a colour of its own. The points are those
of a grid that lie on an object of the first mask, and one in the middle of each object; a tracker follows them through
the real video. A point is visible while the tracker sees it and it lies in its object's mask.
"""

import csv
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from models.estimators import PointTracker
from models.geometry import point_grid
from models.public_benchmarks.case import BenchmarkDataError, PublicCase, PublicMotion
from models.public_benchmarks.frames import labels_at, pictures_of, read_labels
from models.video.decode import UnreadableVideo
from models.video.read import read_video

CAPTIONS = ("caption", "prompt", "text")  # words in the name of a csv's column of captions
SMALLEST = 1e-3  # share of the picture; colours of fewer pixels are blended edges, no objects


def magicbench_cases(folder: Path, grid: int, follow: PointTracker) -> list[PublicCase]:
    """The videos that have masks, by name.

    Args:
        grid: points per side of the whole picture.

    Raises:
        BenchmarkDataError: there are no videos, a video has no masks, or the csv is unreadable.
    """
    videos = {path.stem: path for path in sorted((folder / "videos").rglob("*.mp4"))}
    masks = {path.parent.name: path.parent for path in sorted((folder / "masks").rglob("*.png"))}
    if not videos:
        raise BenchmarkDataError(f"{folder / 'videos'}: no .mp4; expected MagicBench's folder, with videos and masks")
    if missing := sorted(videos.keys() - masks.keys()):
        raise BenchmarkDataError(f"{folder / 'masks'}: no folder of masks for {missing[0]}")
    captions = _captions(folder)
    return [
        PublicCase(
            name,
            captions.get(name, ""),
            (path, *pictures_of(masks[name])),
            partial(_read, path, masks[name], grid, follow),
        )
        for name, path in videos.items()
    ]


def _read(path: Path, masks: Path, grid: int, follow: PointTracker) -> PublicMotion:
    try:
        frames, _ = read_video(path)
    except UnreadableVideo as error:
        raise BenchmarkDataError(f"{path}: {error}") from None
    height, width = frames.shape[1:3]
    labels = [read_labels(mask, (width, height)) for mask in pictures_of(masks)]
    count = min(len(frames), len(labels))
    points = _points(labels[0], point_grid(width, height, grid))
    if not len(points):
        raise BenchmarkDataError(f"{masks}: the first mask shows no object")
    tracks, visibility = follow(frames[:count], points)
    own = labels_at(labels[0], points)
    inside = np.stack([labels_at(each, places) == own for each, places in zip(labels, tracks, strict=False)])
    return PublicMotion(Image.fromarray(frames[0]), tracks, visibility & inside, np.ones(len(points), bool))


def _points(labels: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The points (N, 2) of the grid that lie on objects, and the pixel of each object that is nearest its middle."""
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    objects = numbers[counts >= SMALLEST * labels.size]
    middles = []
    for number in objects:
        pixels = np.argwhere(labels == number)[:, ::-1]
        middles.append(pixels[np.square(pixels - pixels.mean(0)).sum(1).argmin()])
    on_objects = grid[np.isin(labels_at(labels, grid), objects)]
    return np.concatenate([np.reshape(middles, (-1, 2)), on_objects]).astype(np.float32)


def _captions(folder: Path) -> dict[str, str]:
    """Captions by the stem of the video, from the csv in the folder; none if there is no csv."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise BenchmarkDataError(f"{path}: not a readable csv: {error}") from None
        columns = list(rows[0]) if rows else []
        text = next((name for name in columns if name and any(word in name.lower() for word in CAPTIONS)), None)
        for row in rows if text else []:
            stems = {Path(value).stem for name, value in row.items() if name != text and isinstance(value, str)}
            found |= dict.fromkeys(stems - {""}, row[text] or "")
    return found

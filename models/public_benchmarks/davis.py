"""DAVIS 2017 (Pont-Tuset et al.), as published, at 832x480.

    JPEGImages/480p/<sequence>/00000.jpg   Annotations/480p/<sequence>/00000.png   ImageSets/2017/val.txt

Frames are scaled to cover 832x480 and cropped to their middle. The points are a grid of the first frame; a tracker
follows them through the real video, unless a file of tracks is given. The prompt is the sequence's name.
"""

from functools import partial
from pathlib import Path

from models.estimators import PointTracker
from models.geometry import Size, point_grid
from models.public_benchmarks.case import BenchmarkDataError, PublicCase, PublicMotion
from models.public_benchmarks.frames import labels_at, pictures_of, read_frame, read_labels, stacked
from models.strokes.stroke import on_canvas, stroke_tracks
from models.strokes.trajectories import load_trajectories

DAVIS_SIZE: Size = (832, 480)
TRACK_SUFFIXES = (".json", ".npy", ".npz", ".safetensors", ".pth", ".pt")


def davis_cases(
    folder: Path, split: str, grid: int, follow: PointTracker, tracks: Path | None = None
) -> list[PublicCase]:
    """The sequences of a split, in its order.

    Args:
        split: name of a list in `ImageSets/2017`.
        grid: points per side.
        tracks: folder with a file of tracks for each sequence, in any format, in pixels of 832x480.

    Raises:
        BenchmarkDataError: a list, a sequence or its tracks are missing.
    """
    listed = folder / "ImageSets" / "2017" / f"{split}.txt"
    try:
        names = listed.read_text(encoding="utf-8").split()
    except OSError:
        raise BenchmarkDataError(
            f"{listed}: no such file; expected DAVIS 2017's folder, with JPEGImages, Annotations and ImageSets"
        ) from None
    return [_case(folder, name, grid, follow, tracks) for name in names]


def _case(folder: Path, name: str, grid: int, follow: PointTracker, tracks: Path | None) -> PublicCase:
    pictures = pictures_of(folder / "JPEGImages" / "480p" / name)
    mask = folder / "Annotations" / "480p" / name / f"{pictures[0].stem}.png"
    given = None if tracks is None else _track_file(tracks, name)
    read = partial(_read, pictures, mask if mask.is_file() else None, given, grid, follow)
    files = tuple(path for path in (*pictures, mask, given) if path is not None and path.is_file())
    return PublicCase(name, name.replace("-", " "), files, read)


def _read(pictures: list[Path], mask: Path | None, given: Path | None, grid: int, follow: PointTracker) -> PublicMotion:
    images = [read_frame(path, DAVIS_SIZE) for path in pictures]
    if given is None:
        tracks, visibility = follow(stacked(images, pictures[0].parent), point_grid(*DAVIS_SIZE, grid))
    else:
        drawn = on_canvas(load_trajectories(given, DAVIS_SIZE), DAVIS_SIZE)
        tracks, visibility = stroke_tracks(drawn.strokes, DAVIS_SIZE, DAVIS_SIZE, drawn.frames or len(pictures))
    on_object = None if mask is None else labels_at(read_labels(mask, DAVIS_SIZE), tracks[0]) > 0
    return PublicMotion(images[0], tracks, visibility, on_object)


def _track_file(folder: Path, name: str) -> Path:
    for suffix in TRACK_SUFFIXES:
        for stem in (name, f"{name}_tracks"):
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    raise BenchmarkDataError(f"--tracks: {folder}: no tracks of {name}; expected {name}{TRACK_SUFFIXES[0]} or another")

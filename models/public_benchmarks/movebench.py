"""MoveBench (Wan-Move, Chu et al. 2025), as published.

    en/single_track.txt             one line per case: <file of the video>,<caption>
    en/first_frame/<id>.jpg         the picture, 832x480
    en/track/single/<id>_tracks.npy, <id>_visibility.npy       (1, T, N, 2) in pixels of the picture, and (1, T, N)

`multi` in place of `single` has several objects; `zh` has the captions in Chinese.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from models.public_benchmarks.case import BenchmarkDataError, PublicCase, PublicMotion
from models.public_benchmarks.frames import read_frame

MoveBenchKind = Literal["single", "multi"]


def movebench_cases(folder: Path, kind: MoveBenchKind, language: str) -> list[PublicCase]:
    """The cases of one list.

    Raises:
        BenchmarkDataError: the list or a file of a case is missing, or a line has no caption.
    """
    listed = folder / language / f"{kind}_track.txt"
    try:
        lines = listed.read_text(encoding="utf-8-sig").splitlines()
    except OSError:
        raise BenchmarkDataError(f"{listed}: no such file; expected MoveBench's folder, with en and zh") from None
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, comma, caption = line.partition(",")
        if not comma:
            raise BenchmarkDataError(f"{listed}: line {number}: expected <video>,<caption>")
        cases.append(_case(folder / language, kind, Path(name.strip()).stem, caption.strip()))
    return cases


def _case(folder: Path, kind: MoveBenchKind, name: str, caption: str) -> PublicCase:
    place = folder / "track" / kind
    files = (folder / "first_frame" / f"{name}.jpg", place / f"{name}_tracks.npy", place / f"{name}_visibility.npy")
    if missing := [str(path) for path in files if not path.is_file()]:
        raise BenchmarkDataError(f"{missing[0]}: no such file, but {kind}_track.txt names {name}")
    return PublicCase(name, caption, files, partial(_read, *files))


def _read(picture: Path, tracks_file: Path, visibility_file: Path) -> PublicMotion:
    tracks, visibility = _array(tracks_file, 4), _array(visibility_file, 3)
    if tracks.shape[:2] != visibility.shape or tracks.shape[-1] != 2:
        raise BenchmarkDataError(
            f"{tracks_file}: shape {tracks.shape} does not go with {visibility.shape} of {visibility_file.name}"
        )
    return PublicMotion(read_frame(picture), tracks.astype(np.float32), visibility.astype(bool))


def _array(path: Path, dimensions: int) -> np.ndarray:
    """An array without its batch of one."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BenchmarkDataError(f"{path}: not readable as .npy: {error}") from None
    if array.ndim == dimensions and len(array) == 1:
        array = array[0]
    if array.ndim != dimensions - 1:
        raise BenchmarkDataError(f"{path}: expected {dimensions} sides, the first of 1, got shape {array.shape}")
    return array

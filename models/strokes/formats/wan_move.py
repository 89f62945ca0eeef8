"""Wan-Move's arrays: tracks `.npy` (1, T, N, 2) in pixels, and visibility `.npy` (1, T, N) in a file beside it.

The visibility of `example_tracks.npy` is `example_visibility.npy`; that of `a.npy` is `a_visibility.npy`. Without such
a file every point is visible. Arrays (T, N, 2) are read as well.
"""

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.geometry import Size
from models.strokes.formats.common import canvas_lost, from_tracks, one_kind, to_tracks
from models.strokes.stroke import Trajectories, TrajectoryError


class WanMoveFormat:
    """An array of tracks, with visibility beside it."""

    name: ClassVar[str] = "wan-move"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    default_frames: ClassVar[int | None] = 81  # of Wan-Move's videos
    fixed_frames: ClassVar[bool] = False

    def recognises(self, content: Any) -> bool:
        return isinstance(content, np.ndarray)

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes on `canvas`: the format holds none."""
        beside = next((each for each in _beside(path) if each.is_file()), None) if path else None
        if beside is None:
            return from_tracks(content, None, canvas)
        try:
            shown = np.load(beside, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TrajectoryError(f"visibility: {beside}: not readable as .npy: {error}") from None
        return from_tracks(content, shown, canvas)

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """Two files: tracks (1, T, N, 2) float32 and visibility (1, T, N) bool."""
        drawn, lost = one_kind(drawn)
        tracks, shown = to_tracks(drawn.strokes, frames)
        return {path: _npy(tracks[None]), _beside(path)[0]: _npy(shown[None])}, [*lost, canvas_lost(drawn)]


def is_visibility(path: Path) -> bool:
    """Whether an `.npy` file holds the visibility of another one, by its name."""
    return path.suffix == ".npy" and "visib" in path.stem


def _beside(path: Path) -> list[Path]:
    """Where the visibility of a track file may be, the usual name first."""
    names = [path.stem.replace(word, "visibility") for word in ("tracks", "track") if word in path.stem]
    return [path.with_name(f"{name}.npy") for name in (*names, f"{path.stem}_visibility")]


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()

"""CoTracker's tensors in one file, `.npz` or `.safetensors`: tracks (B, T, N, 2) in pixels, visibility (B, T, N).

The tensors are found by their usual names, or the only one of a fitting shape is taken. B must be 1 or left out.
"""

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.numpy

from models.geometry import Size
from models.strokes.formats.common import ArrayContent, canvas_lost, from_tracks, one_kind, to_tracks
from models.strokes.stroke import Trajectories, TrajectoryError

TRACKS = ("tracks", "pred_tracks", "track", "trajectories")
VISIBILITY = ("visibility", "pred_visibility", "visibilities", "pred_visibilities", "visible", "visibles")


class CoTrackerFormat:
    """Named tensors."""

    name: ClassVar[str] = "cotracker"
    suffixes: ClassVar[tuple[str, ...]] = (".npz", ".safetensors")
    default_frames: ClassVar[int | None] = 81
    fixed_frames: ClassVar[bool] = False

    def recognises(self, content: Any) -> bool:
        return isinstance(content, ArrayContent)

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes on `canvas`: the format holds none."""
        arrays = content.arrays
        tracks = _named(arrays, TRACKS)
        if tracks is None:
            fitting = [each for each in arrays.values() if each.ndim in (3, 4) and each.shape[-1] == 2]
            if len(fitting) != 1:
                names = ", ".join(sorted(arrays)) or "none"
                raise TrajectoryError(f"tracks: no tensor of this name among {names}")
            tracks = fitting[0]
        return from_tracks(tracks, _named(arrays, VISIBILITY), canvas)

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """One file with `tracks` (1, T, N, 2) float32 and `visibility` (1, T, N) bool."""
        drawn, lost = one_kind(drawn)
        tracks, shown = to_tracks(drawn.strokes, frames)
        arrays = {"tracks": tracks[None], "visibility": shown[None]}
        if path.suffix == ".safetensors":
            contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            data = safetensors.numpy.save(contiguous)
        else:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)  # type: ignore[arg-type]
            data = buffer.getvalue()
        return {path: data}, [*lost, canvas_lost(drawn)]


def _named(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)

"""CoTracker's tensors in one file, `.npz` or `.safetensors`: tracks (B, T, N, 2) in pixels, visibility (B, T, N).

The tensors are found by their usual names, or the only one of a fitting shape is taken. B must be 1 or left out. Tracks
that ComfyUI's nodes hold, `track_path` and `track_visibility`, are read as well.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.numpy

from models.geometry import Size
from models.strokes.formats.common import ArrayContent, canvas_lost, from_tracks, one_kind, to_tracks
from models.strokes.stroke import Trajectories, TrajectoryError

TRACKS = ("tracks", "pred_tracks", "track", "trajectories", "track_path")
VISIBILITY = (
    "visibility",
    "pred_visibility",
    "visibilities",
    "pred_visibilities",
    "visible",
    "visibles",
    "vis",
    "track_visibility",
)


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
        tracks = _found(arrays, TRACKS, lambda array: array.ndim in (3, 4) and array.shape[-1] == 2)
        if tracks is None:
            raise TrajectoryError(f"tracks: no tensor of this name among {', '.join(sorted(arrays)) or 'none'}")
        steps = arrays[tracks].size // 2
        shown = _found(arrays, VISIBILITY, lambda array: array.dtype == bool and array.size == steps)
        drawn = from_tracks(arrays[tracks], None if shown is None else arrays[shown], canvas)
        unread = ", ".join(sorted(arrays.keys() - {tracks, shown}))
        notes = (*drawn.notes, f"the tensors {unread} have no effect") if unread else drawn.notes
        return replace(drawn, notes=notes)

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


def _found(arrays: dict[str, np.ndarray], names: tuple[str, ...], fits: Callable[[np.ndarray], bool]) -> str | None:
    """The name of a tensor: one of `names`, or that of the only one that fits."""
    named = next((name for name in names if name in arrays), None)
    fitting = [name for name, array in arrays.items() if fits(array)]
    return named or (fitting[0] if len(fitting) == 1 else None)

"""ATI's `.pth`: the bytes of an `.npz`, saved by torch, whose `array` (N, 121, 1, 3) holds x, y and visibility.

All numbers are multiplied by 8: x and y are eighths of pixels, visibility is 8 where a point is visible and 0 where it
is hidden. There are always 121 frames. The file is read with `weights_only`: nothing in it is executed.
"""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from models.errors import UserError
from models.geometry import Size
from models.strokes.formats.common import canvas_lost, from_tracks, one_kind, read_npz, to_tracks
from models.strokes.stroke import Trajectories, TrajectoryError

FRAMES, SCALE = 121, 8


class TorchContent(NamedTuple):
    """The bytes of a file that torch has saved."""

    data: bytes


class ATIFormat:
    """A pickled `.npz`."""

    name: ClassVar[str] = "ati"
    suffixes: ClassVar[tuple[str, ...]] = (".pth", ".pt")
    default_frames: ClassVar[int | None] = FRAMES
    fixed_frames: ClassVar[bool] = True

    def recognises(self, content: Any) -> bool:
        return isinstance(content, TorchContent)

    def decode(self, content: Any, canvas: Size, path: Path | None = None) -> Trajectories:
        """Strokes on `canvas`: the format holds none."""
        import torch

        try:
            found = torch.load(io.BytesIO(content.data), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError):
            raise TrajectoryError(
                "a .pth that torch cannot read without executing code in it; save the tracks as .npz or .npy"
            ) from None
        if isinstance(found, bytes):
            found = read_npz(io.BytesIO(found)).get("array")
        array = np.asarray(found) if isinstance(found, np.ndarray | torch.Tensor) else np.zeros(0)
        if array.ndim != 4 or array.shape[-1] != 3 or FRAMES not in array.shape[:2]:
            raise TrajectoryError(
                f"array: expected (N, {FRAMES}, 1, 3) with x, y and visibility, got {array.shape}; a .pth of ATI has "
                f"{FRAMES} frames, and other tracks belong into an .npz, .npy or .safetensors"
            )
        array = array.swapaxes(0, 1) if array.shape[1] == FRAMES else array
        array = array.reshape(FRAMES, -1, 3).astype(np.float64)
        return from_tracks(array[..., :2] / SCALE, array[..., 2] / SCALE, canvas)

    def encode(self, drawn: Trajectories, path: Path, frames: int) -> tuple[dict[Path, bytes], list[str]]:
        """One file. Raises UserError for another number of frames than 121."""
        if frames != FRAMES:
            raise UserError(f"--frames: a .pth of ATI has {FRAMES} frames, got {frames}")
        import torch

        drawn, lost = one_kind(drawn)
        tracks, shown = to_tracks(drawn.strokes, frames)
        values = np.concatenate([tracks, shown[..., None]], axis=-1).astype(np.float32) * SCALE
        packed, buffer = io.BytesIO(), io.BytesIO()
        np.savez_compressed(packed, array=values.swapaxes(0, 1)[:, :, None])
        torch.save(packed.getvalue(), buffer)
        return {path: buffer.getvalue()}, [*lost, canvas_lost(drawn)]

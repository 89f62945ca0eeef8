"""Arrays of a clip on disk, checked on writing and reading: tracks, camera poses, sparse draws, latents.

tracks = read_tracks(clip.tracks)           # tracks (T, N, 2), visibility (T, N)
draws = read_draws(clip.draws)              # (draws, max_tracks) indices into N
"""

import io
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors.torch import load

from stages.data.items import write_atomically
from stages.data.shards import ShardError, read_item
from stages.data.tables import ContractError


class Tracks(NamedTuple):
    """tracks: (T, N, 2) float32, pixels of the clip, x right, y down, pixel centres; visibility: (T, N) bool."""

    tracks: np.ndarray
    visibility: np.ndarray


def write_tracks(path: Path, tracks: np.ndarray, visibility: np.ndarray) -> None:
    """Raises ContractError if shapes or types differ from `Tracks`."""
    _check_tracks(path, tracks, visibility)
    _write_npz(path, tracks=tracks, visibility=visibility)


def read_tracks(path: Path) -> Tracks:
    """Raises ContractError if the file is missing, damaged or not `Tracks`."""
    data = _read_npz(path, "tracks", "visibility")
    _check_tracks(path, data["tracks"], data["visibility"])
    return Tracks(data["tracks"], data["visibility"])


class Poses(NamedTuple):
    """The camera at each frame of a clip; a frame whose pose is unknown has NaN in both.

    poses: (T, 3, 4) float64 world-to-camera; intrinsics: (T, 4) float64, fx fy cx cy as shares of the clip's width and
    height.
    """

    poses: np.ndarray
    intrinsics: np.ndarray


def write_poses(path: Path, poses: np.ndarray, intrinsics: np.ndarray) -> None:
    """Raises ContractError if shapes or types differ from `Poses`."""
    _check_poses(path, poses, intrinsics)
    _write_npz(path, poses=poses, intrinsics=intrinsics)


def read_poses(path: Path) -> Poses:
    """Raises ContractError if the file is missing, damaged or not `Poses`."""
    data = _read_npz(path, "poses", "intrinsics")
    _check_poses(path, data["poses"], data["intrinsics"])
    return Poses(data["poses"], data["intrinsics"])


def write_draws(path: Path, chosen: np.ndarray) -> None:
    """Raises ContractError, see `read_draws`."""
    _check_draws(path, chosen)
    _write_npz(path, chosen=chosen)


def read_draws(path: Path) -> np.ndarray:
    """Track indices (draws, max_tracks) int32 of each sparse draw, filled up with -1.

    Raises:
        ContractError: the file is missing, damaged or something else.
    """
    chosen = _read_npz(path, "chosen")["chosen"]
    _check_draws(path, chosen)
    return chosen


def read_latents(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (T, C, h, w) and text (L, D) of one clip, float32."""
    data = load(read_item(path))
    return data["latents"].float(), data["text"].float()


def _check_tracks(path: Path, tracks: np.ndarray, visibility: np.ndarray) -> None:
    if tracks.dtype != np.float32 or tracks.ndim != 3 or tracks.shape[-1] != 2 or not np.isfinite(tracks).all():
        raise ContractError(f"{path}: tracks must be finite (T, N, 2) float32, found {tracks.shape} {tracks.dtype}")
    if visibility.dtype != np.bool_ or visibility.shape != tracks.shape[:2]:
        raise ContractError(
            f"{path}: visibility must be {tracks.shape[:2]} bool, found {visibility.shape} {visibility.dtype}"
        )


def _check_poses(path: Path, poses: np.ndarray, intrinsics: np.ndarray) -> None:
    frames = len(poses)
    for name, array, shape in (("poses", poses, (frames, 3, 4)), ("intrinsics", intrinsics, (frames, 4))):
        if array.dtype != np.float64 or array.shape != shape:
            raise ContractError(f"{path}: {name} must be {shape} float64, found {array.shape} {array.dtype}")
    values = np.concatenate([poses.reshape(-1, 12), intrinsics], axis=1)
    if not (np.isfinite(values).all(1) | np.isnan(values).all(1)).all():
        raise ContractError(f"{path}: poses and intrinsics of a frame must be all finite or all NaN")


def _check_draws(path: Path, chosen: np.ndarray) -> None:
    if chosen.dtype != np.int32 or chosen.ndim != 2 or (chosen < -1).any():
        raise ContractError(
            f"{path}: chosen must be (draws, max_tracks) int32 >= -1, found {chosen.shape} {chosen.dtype}"
        )


def _write_npz(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue(), lasting=False)


def _read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(read_item(path))) as data:
            return {name: data[name] for name in names}
    except FileNotFoundError:
        raise ContractError(f"{path}: no such file; run the stage that writes it (see dvc.yaml)") from None
    except ShardError:
        raise
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ContractError(f"{path}: damaged: {error}; delete it and run its stage again") from None
    except KeyError as error:
        raise ContractError(f"{path}: {error.args[0]}; delete it and run its stage again") from None

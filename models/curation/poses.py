"""Camera poses of a clip's frames, from the camera files of RealEstate10K, the paper's camera-only videos (Sec 2.2).

A camera file has the video's address in its first line, then a line for each frame with 19 numbers: its time in
microseconds, the intrinsics fx fy cx cy as shares of the frame's width and height, two zeros, and the 3x4
world-to-camera matrix row by row.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from models.curation.outcome import View

MAX_DISTANCE = 0.1  # seconds from a frame to the nearest known pose; farther off its pose is unknown
_COLUMNS = 19
_ROTATION_TOLERANCE = 0.01


class CameraPath(NamedTuple):
    """times: (N,) seconds, rising, N >= 2; intrinsics: (N, 4), shares of the frame; poses: (N, 3, 4)."""

    times: np.ndarray
    intrinsics: np.ndarray
    poses: np.ndarray


def parse_camera_file(text: str) -> tuple[str, CameraPath]:
    """The video's address and the camera's path. Lines may come in any order; of equal times the first one counts.

    Raises:
        ValueError: the text is no camera file; the message names the line.
    """
    address, *lines = text.splitlines() or [""]
    rows = [_numbers(line, number) for number, line in enumerate(lines, 2) if line.strip()]
    table = np.array(rows).reshape(-1, _COLUMNS)
    times, order = np.unique(table[:, 0], return_index=True)
    if len(times) < 2:
        raise ValueError("expected lines for two frames or more")
    poses = table[order, 7:].reshape(-1, 3, 4)
    if not _are_rotations(poses[:, :, :3]):
        raise ValueError("the left 3x3 of a matrix is no rotation")
    return address.strip(), CameraPath(times / 1e6, table[order, 1:5], poses)


def poses_at(path: CameraPath, times: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The camera at the frames of a clip.

    Between two known poses the rotation turns at constant speed and the camera's centre moves on a line.

    Args:
        times: (T,) seconds, NaN where unknown.
        view: What part of the video's frame the clip shows.

    Returns:
        Poses (T, 3, 4) and intrinsics (T, 4), these as shares of the *clip's* width and height. A frame without a known
        pose within MAX_DISTANCE has NaN in both.
    """
    nearest = np.abs(times[:, None] - path.times).min(1)
    known = nearest <= MAX_DISTANCE
    at = np.clip(times[known], path.times[0], path.times[-1])

    rotations = Rotation.from_matrix(path.poses[:, :, :3])
    centres = -rotations.inv().apply(path.poses[:, :, 3])
    turned = Slerp(path.times, rotations)(at)
    poses = np.full((len(times), 3, 4), np.nan)
    poses[known, :, :3] = turned.as_matrix()
    poses[known, :, 3] = -turned.apply(_interpolated(at, path.times, centres))

    intrinsics = np.full((len(times), 4), np.nan)
    intrinsics[known] = _interpolated(at, path.times, path.intrinsics)
    intrinsics[:, 2:] -= view.left, view.top
    intrinsics /= (view.width, view.height) * 2
    return poses, intrinsics


def _interpolated(at: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(at, times, column) for column in values.T], axis=1)


def _numbers(line: str, number: int) -> list[float]:
    try:
        row = [float(word) for word in line.split()]
    except ValueError:
        row = []
    if len(row) != _COLUMNS or not all(map(math.isfinite, row)):
        raise ValueError(f"line {number}: expected {_COLUMNS} numbers")
    return row


def _are_rotations(matrices: np.ndarray) -> bool:
    unlike = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max()
    return bool(unlike <= _ROTATION_TOLERANCE and (np.linalg.det(matrices) > 0).all())

"""A clip's moving object and its background, found in the clip's own grid of tracks.

The camera's motion is the similarity that most tracks obey (RANSAC). Other tracks belong to objects, or are background
tracks that an object drags along when it passes over them. The object is the largest connected patch of tracks that
deviate from the camera's motion in the same way. As few frames as possible are used, because an object drags along more
background the longer it moves.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

MOVES = 0.04  # of the frame's height; a track that deviates from the camera's motion by more belongs to an object
RESTS = 0.015  # of the frame's height; a track that never deviates by more belongs to the background
DEPTH = 1.4  # grid steps from an object's start to the nearest point beside the object: its neighbours belong to it
MIN_SUPPORT = 8  # tracks, at least, to fit the camera's motion to
ALIKE = 0.03  # of the frame's height, mean over the frames; paths of one object may differ by so much
CLEARANCE = 0.3  # of the frame's height, between the background's points and the object's path
INSIDE = 0.03  # of the frame's height, between a point's path and the frame's edge


class MovingObject(NamedTuple):
    """A moving object and its background, as grid points in pixels of frame 0.

    start: (2,) a point well inside the object.
    body: (K, 2) the object's points whose neighbours all belong to it, the deepest first.
    background: (M, 2) points that move with the camera.
    """

    start: np.ndarray
    body: np.ndarray
    background: np.ndarray


def find_object(tracks: np.ndarray, visibility: np.ndarray, grid: int, height: int) -> MovingObject | None:
    """The largest object that moves against the camera, or None.

    Args:
        tracks: (T, grid * grid, 2) pixels, of points on a square grid, row by row.
        visibility: (T, grid * grid) bool.
        height: of the frame, in pixels.
    """
    relative = _relative_to_camera(tracks, visibility, 0.01 * height)
    for t in range(1, len(relative) + 1):
        patch = _largest_patch(relative[:t], grid, height)
        depth = ndimage.distance_transform_edt(np.pad(patch, 1))[1:-1, 1:-1]
        if depth.max() >= DEPTH:
            break
    else:
        return None
    middle = np.array(ndimage.center_of_mass(patch))
    away = np.linalg.norm(np.indices(patch.shape).transpose(1, 2, 0) - middle, axis=-1)
    order = np.lexsort([away.ravel(), -depth.ravel()])
    inner = order[depth.ravel()[order] >= DEPTH]
    rests = _furthest(relative) < RESTS * height
    return MovingObject(tracks[0, inner[0]], tracks[0, inner], tracks[0, rests])


def clear_background(background: np.ndarray, path: np.ndarray, width: int, height: int) -> np.ndarray:
    """The background points (of M, 2) that an object on `path` (T, 2) does not come near, and that would stay in the
    frame if they followed it."""
    distance = np.linalg.norm(background[:, None] - path, axis=-1).min(1)
    stays = _stays(background + (path - path[0])[:, None], width, height)
    return background[(distance > CLEARANCE * height) & stays]


def staying(points: np.ndarray, strokes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Those points (N, 2) that would stay in the frame if the whole scene followed the camera's `strokes` (T, K, 2)."""
    carried = [points]
    for places in strokes[1:]:
        matrix, _ = cv2.estimateAffinePartial2D(strokes[0], places)
        carried.append(points @ matrix[:, :2].T + matrix[:, 2])
    return points[_stays(np.stack(carried), width, height)]


def _stays(paths: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whether each of the paths (T, N, 2) keeps within the frame: (N,)."""
    room = np.minimum(paths, np.array([width - 1, height - 1]) - paths).min((0, 2))
    return room > INSIDE * height


def _largest_patch(relative: np.ndarray, grid: int, height: int) -> np.ndarray:
    """The largest connected set of grid points (grid, grid) that move against the camera in the same way."""
    moving = np.flatnonzero(_furthest(relative) > MOVES * height)
    patches = [_patch(relative, moving, leader, grid, ALIKE * height) for leader in moving.tolist()]
    return max(patches, key=np.count_nonzero, default=np.zeros((grid, grid), bool))


def _patch(relative: np.ndarray, moving: np.ndarray, leader: int, grid: int, tolerance: float) -> np.ndarray:
    """Connected grid points (grid, grid) around `leader` that move as it does."""
    difference = np.linalg.norm(relative[:, moving] - relative[:, leader, None], axis=-1).mean(0)
    alike = np.zeros(grid * grid, bool)
    alike[moving[difference < tolerance]] = True
    labels, _ = ndimage.label(alike.reshape(grid, grid))
    return labels == labels.ravel()[leader]


def _furthest(relative: np.ndarray) -> np.ndarray:
    """How far (N,) each track ever is from the camera's motion, in pixels; nan where it is not seen all the time."""
    return np.linalg.norm(relative, axis=-1).max(0)


def _relative_to_camera(tracks: np.ndarray, visibility: np.ndarray, tolerance: float) -> np.ndarray:
    """Displacement (T - 1, N, 2) of each track from where the camera's motion takes it; nan where that is unknown."""
    relative = np.full((len(tracks) - 1, *tracks.shape[1:]), np.nan)
    for t in range(1, len(tracks)):
        seen = visibility[0] & visibility[t]
        matrix = None
        if seen.sum() >= MIN_SUPPORT:
            matrix, _ = cv2.estimateAffinePartial2D(
                tracks[0, seen], tracks[t, seen], ransacReprojThreshold=max(tolerance, 0.5)
            )
        if matrix is not None:
            relative[t - 1, seen] = tracks[t, seen] - (tracks[0, seen] @ matrix[:, :2].T + matrix[:, 2])
    return relative

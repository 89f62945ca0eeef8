"""An estimate without a model: the picture warped by the drawn strokes.

It moves pixels and invents nothing. What lies behind a moved object is unknown, so where a stroke is longer than the
object, the object is seen at its start as well.
"""

import base64
import io

import cv2
import numpy as np
from PIL import Image

from models.geometry import Size
from models.serving.studio.drawing import Drawing
from models.strokes.stroke import stroke_tracks

SIDE = 360  # pixels of the estimate's longer side
FRAMES = 13
REACH = 0.13  # share of the width over which what a stroke carries fades
NEAR = 0.05  # share of the width over which one stroke's displacement passes into the next one's


def warped_frames(drawn: Drawing) -> np.ndarray:
    """Frames (T, H, W, 3) uint8: every pixel moves with the strokes near it; camera strokes move the whole picture."""
    scale = min(1.0, SIDE / max(drawn.picture.size))
    width, height = (max(2, round(side * scale)) for side in drawn.picture.size)
    picture = np.asarray(drawn.picture.resize((width, height), Image.Resampling.BILINEAR))
    size, canvas = (width, height), drawn.trajectories.canvas
    y, x = np.mgrid[:height, :width].astype(np.float32)
    place = np.stack([x, y], -1)
    camera, _ = stroke_tracks(drawn.trajectories.camera_strokes, canvas, size, FRAMES)
    objects, _ = stroke_tracks(drawn.trajectories.strokes, canvas, size, FRAMES)
    frames = []
    for t in range(FRAMES):
        moved = _displacement(place, camera, t, size, whole=True) + _displacement(place, objects, t, size, whole=False)
        origin = (place - moved).astype(np.float32)
        frames.append(cv2.remap(picture, origin[..., 0], origin[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE))
    return np.stack(frames)


def as_data_urls(frames: np.ndarray) -> list[str]:
    """Frames (T, H, W, 3) uint8 as JPEG for a page."""
    urls = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=85)
        urls.append(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return urls


def _displacement(place: np.ndarray, tracks: np.ndarray, t: int, size: Size, whole: bool) -> np.ndarray:
    """How far the pixels (H, W, 2) have moved in frame t by tracks (T, N, 2)."""
    total = np.zeros_like(place)
    if not tracks.shape[1]:
        return total
    weights = np.full(place.shape[:2], 1e-12, np.float32)
    nearest = np.full(place.shape[:2], np.inf, np.float32)
    for start, now in zip(tracks[0], tracks[t], strict=True):
        distance = np.square(place - now).sum(-1) / size[0] ** 2
        weight = np.exp(-distance / (2 * (0.5 if whole else NEAR) ** 2))
        total += weight[..., None] * (now - start)
        weights += weight
        nearest = np.minimum(nearest, distance)
    total /= weights[..., None]
    return total if whole else total * np.exp(-nearest / (2 * REACH**2))[..., None]

"""Strokes for the editor from files of any format and from the motion of a video."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from models.errors import UserError
from models.geometry import Size, point_grid
from models.serving.track import read_short_video, video_strokes
from models.strokes.formats.wan_move import is_visibility
from models.strokes.stroke import Trajectories, on_canvas
from models.strokes.thinning import thinned_all
from models.strokes.trajectories import load_trajectories

MOST_STROKES = 64  # that the editor can still show well; of more, those that move most are taken
THIN = 1.5  # pixels of the picture that a thinned stroke may lie off its track
STILL = 0.01  # share of the picture's width below which a point of a video counts as resting
LONG_SIDE = 512  # pixels at which videos are tracked
Point = tuple[float, float]  # x and y in pixels


def strokes_of_files(paths: list[Path], canvas: Size) -> tuple[Trajectories, str]:
    """Strokes of one file (and the visibility beside it) on a picture of this size, and what to say about them."""
    files = [path for path in paths if not is_visibility(path)]
    if len(files) != 1:
        raise UserError(f"strokes: give one trajectory file, with its visibility if it has one; got {len(files)}")
    return _for_editor(load_trajectories(_together(files[0], paths), canvas), canvas)


def frames_to_track(path: Path) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of a short video, at most `LONG_SIDE` pixels a side. Raises UserError."""
    frames = read_short_video(path)
    height, width = frames.shape[1:3]
    scale = min(1.0, LONG_SIDE / max(width, height))
    if scale == 1:
        return frames
    size = (round(width * scale), round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def strokes_of_video(path: Path, points: Sequence[Point] | int, canvas: Size) -> tuple[Trajectories, str]:
    """The motion of a video as strokes on a picture of this size, and what to say about them.

    Args:
        points: in pixels of `frames_to_track`, each of which becomes a stroke; or a number of points per side of a
            grid, of which those that move become strokes.
    """
    frames = frames_to_track(path)
    height, width = frames.shape[1:3]
    if isinstance(points, int):
        starts, least = point_grid(width, height, points), STILL * width
    elif len(points):
        starts, least = np.array(points, np.float32), 0.0
    else:
        raise UserError("points: click at least one on the video's first frame, or follow a grid")
    return _for_editor(video_strokes(frames, starts, "lucas_kanade", least), canvas)


def _for_editor(drawn: Trajectories, canvas: Size) -> tuple[Trajectories, str]:
    if drawn.canvas != canvas:
        drawn = on_canvas(drawn, canvas)
    notes = list(drawn.notes)
    strokes = drawn.strokes
    if len(strokes) > MOST_STROKES:
        reach = [np.ptp(stroke.points, axis=0).sum() for stroke in strokes]
        chosen = sorted(np.argsort(reach)[::-1][:MOST_STROKES])
        notes.append(f"the {MOST_STROKES} of {len(strokes)} tracks that move most were taken")
        strokes = tuple(strokes[n] for n in chosen)
    hidden = sum(not stroke.visibility.all() for stroke in strokes)
    if hidden:
        notes.append(f"{hidden} tracks are hidden for a while: in the editor they end with their last visible point")
        strokes = tuple(stroke.while_visible() for stroke in strokes if stroke.visibility.any())
    found = thinned_all(Trajectories(*canvas, strokes, drawn.camera_strokes, drawn.frames), THIN)
    head = f"{len(strokes) + len(drawn.camera_strokes)} strokes were added."
    return found, " ".join([head, *(f"{note[0].upper()}{note[1:]}." for note in notes)])


def _together(file: Path, paths: list[Path]) -> Path:
    """Uploads lie in folders of their own: put the visibility beside its tracks."""
    for path in paths:
        if is_visibility(path) and not (file.parent / path.name).exists():
            (file.parent / path.name).write_bytes(path.read_bytes())
    return file

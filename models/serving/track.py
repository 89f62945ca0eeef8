"""`image-conductor track`: the motion of a video as strokes.

image-conductor track --video dance.mp4 --grid 8 --output strokes.json
image-conductor track --video dance.mp4 --point 120,80 --point 200,90 --output tracks.npz
"""

import argparse
from pathlib import Path

import numpy as np

from models.errors import UserError
from models.estimators import load_estimator
from models.geometry import inside_frame, point_grid
from models.strokes.formats.common import from_tracks
from models.strokes.stroke import MAX_POINTS, Trajectories
from models.strokes.thinning import thinned_all
from models.strokes.trajectories import FORMAT_NAMES, save_trajectories
from models.video.read import read_frames

LARGEST_GRID = 32
TRACKERS = ("lucas_kanade", "template", "cotracker")


def video_strokes(frames: np.ndarray, points: np.ndarray, tracker: str, least_motion: float = 0.0) -> Trajectories:
    """The tracks of points (N, 2) of frame 0 through a video (T, H, W, 3) uint8, in pixels of the video.

    Args:
        tracker: name of a point tracker, see `models.estimators`.
        least_motion: tracks that never get so many pixels away from their start are left out.

    Raises:
        UserError: a point lies outside the frame, or no track moves enough.
    """
    height, width = frames.shape[1:3]
    if not len(points) or not inside_frame(points, width, height).all():
        raise UserError(f"--point: every point must lie inside the video's {width}x{height} pixels")
    tracks, visibility = load_estimator("tracks", tracker)(frames, points.astype(np.float32))
    moved = np.where(visibility, np.linalg.norm(tracks - tracks[:1], axis=-1), 0).max(0)
    moving = moved >= least_motion
    if not moving.any():
        raise UserError(f"--least-motion: no track moves by {least_motion:g} pixels; the most is {moved.max():.1f}")
    return from_tracks(tracks[:, moving], visibility[:, moving], (width, height))


def read_short_video(path: Path) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of a video of 2 to `MAX_POINTS` frames. Raises UserError, which names the option."""
    frames: list[np.ndarray] = []
    try:
        for frame in read_frames(path):
            frames.append(frame)
            if len(frames) > MAX_POINTS:
                raise UserError(f"--video: {path}: more than {MAX_POINTS} frames; cut it")
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"--video: {path}: {error}") from None
    if len(frames) < 2:
        raise UserError(f"--video: {path}: {len(frames)} frame; motion needs two")
    return np.stack(frames)


def run_track(options: argparse.Namespace) -> None:
    """Track a video and write the strokes."""
    frames = read_short_video(options.video)
    height, width = frames.shape[1:3]
    points = np.array(options.point) if options.point else point_grid(width, height, options.grid)
    drawn = video_strokes(frames, points, options.tracker, options.least_motion)
    if options.thin is not None:
        drawn = thinned_all(drawn, options.thin)
    written = save_trajectories(drawn, options.output, options.format)
    hidden = sum(not stroke.visibility.all() for stroke in drawn.strokes)
    print(
        f"{', '.join(map(str, written.paths))}: {len(drawn.strokes)} strokes of {len(points)} points over "
        f"{len(frames)} frames of {width}x{height}; {hidden} of them hidden for a while"
    )
    for sentence in (*drawn.notes, *written.lost):
        print(f"  {sentence}")


def add_track_options(track: argparse.ArgumentParser) -> None:
    """The options of `track`."""
    track.set_defaults(run=run_track)
    track.add_argument("--video", type=Path, required=True, help="a short video")
    track.add_argument("--output", type=Path, required=True, help="trajectory file")
    track.add_argument("--format", choices=FORMAT_NAMES, help="of the file; chosen by its suffix if left out")
    where = track.add_mutually_exclusive_group()
    where.add_argument("--grid", type=_grid, default=8, help="follow N x N points; default: %(default)s")
    where.add_argument("--point", type=_point, action="append", metavar="X,Y", help="follow this point; repeatable")
    track.add_argument("--tracker", choices=TRACKERS, default=TRACKERS[0], help="default: %(default)s")
    track.add_argument(
        "--least-motion", type=float, default=0.0, metavar="PIXELS", help="leave out tracks that move less; default: 0"
    )
    track.add_argument(
        "--thin", type=float, metavar="PIXELS", help="keep few points, within so many pixels of the track in each frame"
    )


def _grid(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LARGEST_GRID:
        raise argparse.ArgumentTypeError(f"must be from 1 to {LARGEST_GRID}, got {number}")
    return number


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected X,Y in pixels, for example 120,80, got {text!r}") from None
    return x, y

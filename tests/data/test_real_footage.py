"""Real footage, joined and moved in known ways: cuts, the camera's class, and tracks are what they must be."""

import cv2
import numpy as np
import pytest

from models.curation.camera import camera_class, camera_motion
from models.curation.clip import ClipSettings, curate_clip
from models.curation.outcome import Clip
from models.estimators import load_estimator
from models.geometry import inside_frame, point_grid
from models.metrics import tap_vid
from models.video.read import read_frames
from models.video.write import encode_mp4
from tests.footage import real_videos

WIDTH, HEIGHT = 384, 256
CENTRE = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
LEFT_OUT = {"bikes.mp4", "carphone_distorted.mp4"}  # cut itself; the same film as another


def one_shot_films():
    return [path for path in real_videos() if path.name not in LEFT_OUT]


def covering(frame, scale=1.0):
    """The frame scaled to cover `scale` times WIDTH x HEIGHT."""
    factor = scale * max(WIDTH / frame.shape[1], HEIGHT / frame.shape[0])
    size = round(frame.shape[1] * factor + 0.5), round(frame.shape[0] * factor + 0.5)
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def part(path, frames):
    """(T, H, W, 3): the first frames of a film, the middle of each."""
    shown = np.stack([covering(frame) for frame in read_frames(path, indices=range(frames))])
    top, left = (shown.shape[1] - HEIGHT) // 2, (shown.shape[2] - WIDTH) // 2
    return shown[:, top : top + HEIGHT, left : left + WIDTH]


def test_hard_cuts_are_found_and_the_longest_scene_is_used(tmp_path):
    lengths = [22, 40, 28, 33, 25, 30]
    films = one_shot_films()
    parts = [part(path, length) for path, length in zip(films, lengths[: len(films)], strict=False)]
    joined = [frames for frames in parts if len(frames) > 20]
    path = tmp_path / "joined.mp4"
    path.write_bytes(encode_mp4(np.concatenate(joined), 24))
    edges = np.cumsum([0, *map(len, joined)])
    longest = int(np.argmax([len(frames) for frames in joined]))
    cuts, count = load_estimator("cuts", "adaptive")(read_frames(path, (192, 128)))
    assert (cuts, count) == (edges[1:-1].tolist(), edges[-1])
    settings = ClipSettings((96, 64), 16, (1, 16), 2, True)
    clip = curate_clip(
        path, settings, load_estimator("cuts", "adaptive"), load_estimator("flow", "dis"), np.random.default_rng(0)
    )
    assert isinstance(clip, Clip)
    assert (clip.facts.scene_start, clip.facts.scene_end) == (edges[longest], edges[longest + 1])


def moved(pictures, kind):
    """A film (T, H, W, 3) of T pictures under a known camera, and the true tracks (T, N, 2) of what rests in them."""
    centre = np.array([(pictures[0].shape[1] - 1) / 2, (pictures[0].shape[0] - 1) / 2])
    grid, film, tracks = point_grid(WIDTH, HEIGHT, 16), [], []
    for picture, u in zip(pictures, np.linspace(0, 1, len(pictures)), strict=True):
        turn = np.deg2rad(10 * u) if kind == "roll" else 0.0
        zoom = np.exp(0.2 * u) if kind == "zoom" else 1.0
        shift = np.array([45.0, 20.0]) * u if kind == "pan" else np.zeros(2)
        matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        affine = np.hstack([matrix, (CENTRE + shift - matrix @ centre)[:, None]])
        film.append(cv2.warpAffine(picture, affine, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT))
        tracks.append((grid - CENTRE) @ matrix.T + shift + CENTRE)
    return np.stack(film), np.stack(tracks).astype(np.float32)


@pytest.mark.parametrize("kind", ["static", "pan", "zoom", "roll"])
def test_the_camera_is_named_and_tracks_stick(kind):
    for path in real_videos():
        film, truth = moved([covering(next(iter(read_frames(path))), 1.6)] * 16, kind)
        camera = camera_motion(film)
        assert camera is not None and camera_class(camera.pan, camera.zoom, camera.roll, 0.02) == kind, path.name
        followed = load_estimator("tracks", "lucas_kanade")(film, truth[0])
        figures = tap_vid(*followed, truth, inside_frame(truth, WIDTH, HEIGHT))
        assert figures["within_4_px"] > 0.98 and figures["average_jaccard"] > 0.8, path.name


@pytest.mark.parametrize("size", [(96, 64), (384, 256)])
@pytest.mark.parametrize("kind", ["static", "pan", "zoom", "roll"])
def test_the_camera_is_named_although_something_moves(kind, size):
    """A cat in front of a camera at rest and a bear in front of one that pans slowly, under a second camera."""
    films = {path.name: path for path in real_videos()}
    if not {"cat.mp4", "bear.mp4"} <= films.keys():
        pytest.skip("cat.mp4 and bear.mp4 are not in ../shared/videos")
    cat = [covering(frame, 1.6) for frame in read_frames(films["cat.mp4"], indices=range(16))]
    bear = [covering(frame, 1.6) for frame in read_frames(films["bear.mp4"], indices=range(66, 82))]
    film, other = (
        camera_motion(
            np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in moved(film, kind)[0]])
        )
        for film in (cat, bear)
    )
    assert camera_class(film.pan, film.zoom, film.roll, 0.02) == kind and film.object_share < 0.35
    assert other.pan > 0.02 and (kind != "static" or camera_class(other.pan, other.zoom, other.roll, 0.02) == "pan")


def test_textured_objects_keep_tracks_of_their_own():
    """A piece of one film that moves over a still of another."""
    pictures = [covering(next(iter(read_frames(path))))[:HEIGHT, :WIDTH] for path in one_shot_films()]
    grid = point_grid(WIDTH, HEIGHT, 16)
    left, top, width, height = 100, 70, 140, 110
    inner = ((grid > (left + 10, top + 10)) & (grid < (left + width - 10, top + height - 10))).all(1)
    shares = []
    for ground, other in zip(pictures, pictures[1:] + pictures[:1], strict=True):
        film = np.stack([ground] * 16)
        for t, frame in enumerate(film):
            frame[top + t : top + t + height, left + 4 * t : left + 4 * t + width] = other[:height, :width]
        tracks, visibility = load_estimator("tracks", "lucas_kanade")(film, grid)
        right = np.linalg.norm(tracks[-1] - grid - (60, 15), axis=1) < 4
        shares.append((visibility.all(0) & right)[inner].mean())
    assert max(shares) > 0.5

"""How the shipped weights behave: the pocket base with its motion ControlNet, on procedural scenes.

No trained LoRA is in git, so there are no modes here: the strokes alone decide what moves. One stroke on an object with
pinned points around it asks for the object. Equal strokes all over the picture ask for the camera. `make repro`
measures the modes with trained LoRAs, see `leakage` in metrics/evaluation.json.
"""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.animate import pocket_pipeline
from models.denoising.strokes import Strokes
from models.estimators import load_tracker_of_generated
from models.geometry import point_grid
from models.pixels import to_uint8
from models.scenes import moving_parts, render, sample_scenes, scene_captions

WIDTH, HEIGHT, FRAMES = 96, 64, 8
SEEDS = [0, 1, 2, 3]  # scenes with one moving object; not those of pre-training
GRID = torch.from_numpy(point_grid(WIDTH, HEIGHT, 16))
CORNERS = torch.tensor([[6.0, 6], [90, 6], [6, 58], [90, 58]])
ALL_OVER = torch.tensor([[x, y] for y in (16.0, 48) for x in (16.0, 48, 80)])
CLEAR = 22  # pixels between a background point and every stroke: no object of these scenes is wider


@cache
def pipeline():
    return pocket_pipeline("object")


class Scene:
    """A first frame, its caption, the object's middle, and the direction from it to the frame's middle, in pixels."""

    def __init__(self, seed: int):
        scenes = sample_scenes(["object"], FRAMES, [seed], movers=1)
        self.frame, self.caption = render(scenes, WIDTH, HEIGHT)[0, 0], scene_captions(scenes)[0]
        self.on_object = moving_parts(scenes, GRID[None], WIDTH, HEIGHT)[0] > 0
        self.middle = GRID[self.on_object].mean(0)
        self.towards = torch.nn.functional.normalize(torch.tensor([WIDTH / 2, HEIGHT / 2]) - self.middle, dim=0)


SCENES = [Scene(seed) for seed in SEEDS]


def generate(starts: list[Tensor], moves: list[Tensor]) -> np.ndarray:
    """A video (T, H, W, 3) uint8 of each scene with strokes from (N, 2) by (N, 2) pixels."""
    base, steps = pipeline().foundation, torch.linspace(0, 1, FRAMES)[:, None, None]
    tracks = torch.stack([start + steps * move for start, move in zip(starts, moves, strict=True)])
    first = base.encode_images(torch.stack([scene.frame for scene in SCENES]))
    text = base.encode_text([scene.caption for scene in SCENES])
    shape = (len(SCENES), first.shape[1], FRAMES, *first.shape[2:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    strokes = {"object": Strokes.visible(tracks)}
    return to_uint8(base.decode(pipeline().sample_latents(first, text, strokes, "controlnet", latents=noise)))


def moved(video: np.ndarray, points: Tensor) -> np.ndarray:
    """Displacements (N, 2) of points (N, 2) over the whole video, in pixels."""
    tracks, _ = load_tracker_of_generated("lucas_kanade")(video, points.numpy().astype(np.float32))
    return tracks[-1] - tracks[0]


def background(scene: Scene, starts: Tensor, move: Tensor) -> Tensor:
    """Background points (M, 2) that lie clear of the object and its path, and stay in the frame if they move."""
    points = GRID[~scene.on_object]
    path = scene.middle + torch.linspace(0, 1, FRAMES)[:, None] * move
    clear = torch.cdist(points, path).amin(1) > CLEAR
    inside = ((points + move > 2) & (points + move < torch.tensor([WIDTH - 3.0, HEIGHT - 3.0]))).all(1)
    return points[clear & inside]


def test_a_stroke_twice_as_long_moves_the_object_twice_as_far():
    lengths = {}
    for length in (10, 20):
        videos = generate([s.middle[None] for s in SCENES], [length * s.towards[None] for s in SCENES])
        lengths[length] = [
            float(moved(video, scene.middle[None])[0] @ scene.towards.numpy())
            for video, scene in zip(videos, SCENES, strict=True)
        ]

    for short, long in zip(lengths[10], lengths[20], strict=True):
        assert short == pytest.approx(10, abs=2)
        assert long / short == pytest.approx(2, rel=0.2)


def share_of_background(starts: list[Tensor], moves: list[Tensor]) -> list[float]:
    """The median share of the first stroke that the background follows, for each scene."""
    shares = []
    for video, scene, start, move in zip(generate(starts, moves), SCENES, starts, moves, strict=True):
        length = move[0].norm()
        followed = moved(video, background(scene, start, move[0])) @ (move[0] / length).numpy()
        shares.append(float(np.median(followed) / length))
    return shares


def test_strokes_all_over_move_the_background_and_one_on_an_object_among_pinned_points_does_not():
    camera = share_of_background([ALL_OVER for _ in SCENES], [12 * s.towards.repeat(6, 1) for s in SCENES])
    still = torch.zeros(4, 2)
    object_ = share_of_background(
        [torch.cat([s.middle[None], CORNERS]) for s in SCENES],
        [torch.cat([16 * s.towards[None], still]) for s in SCENES],
    )

    assert min(camera) > 0.7
    assert max(object_) < 0.15


def test_a_pinned_object_stays_while_the_scene_moves():
    """Without the pin the object goes with the scene, whose strokes keep clear of it."""
    far = [ALL_OVER[torch.cdist(ALL_OVER, s.middle[None])[:, 0].topk(4).indices] for s in SCENES]
    moves = [12 * s.towards.repeat(4, 1) for s in SCENES]
    pins = [torch.cat([start, s.middle[None]]) for start, s in zip(far, SCENES, strict=True)]
    rests = [torch.cat([move, torch.zeros(1, 2)]) for move in moves]
    free, pinned = (
        [
            float(np.linalg.norm(moved(video, scene.middle[None])[0]))
            for video, scene in zip(videos, SCENES, strict=True)
        ]
        for videos in (generate(far, moves), generate(pins, rests))
    )

    assert min(free) > 6
    assert max(pinned) < 3

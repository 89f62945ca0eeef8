"""Procedural scenes whose motion is known exactly: marbled backgrounds, two-tone shapes, a moving camera.

They are the pocket world: `collect` renders them as raw videos, `pretrain` streams them. Everything is a function of
the seed. Lengths are in frame heights: the first frame spans x in [-W/2H, W/2H], y in [-1/2, 1/2], origin at its
centre, x right, y down; the same scene can therefore be rendered at any size.

Seeds are disjoint by use: videos of `collect` take `collect.seed * 1_000_000 + index` (camera split: + 500_000),
pre-training takes seeds above `PRETRAIN_SEEDS`.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["camera", "object", "mixed"]

PRETRAIN_SEEDS = 10**12
MAX_OBJECTS = 3
WAVES = 6
ASPECT = 1.5
SOFTNESS = 0.035  # frame heights; half the width of an edge; softer edges lose less in the codec

COLOURS = {
    "red": (0.90, 0.20, 0.20),
    "orange": (0.98, 0.58, 0.12),
    "yellow": (0.98, 0.88, 0.25),
    "green": (0.25, 0.72, 0.32),
    "blue": (0.20, 0.40, 0.90),
    "purple": (0.58, 0.28, 0.80),
    "white": (0.97, 0.97, 0.97),
    "black": (0.08, 0.08, 0.10),
}
BACKGROUNDS = {
    "grey": (0.55, 0.57, 0.60),
    "teal": (0.20, 0.50, 0.50),
    "brown": (0.50, 0.38, 0.28),
    "pink": (0.90, 0.70, 0.74),
    "navy": (0.16, 0.20, 0.38),
    "beige": (0.86, 0.80, 0.66),
}
SHAPES = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes of T frames with up to K objects; tensors may live on any device.

    camera (B, T, 4): pan x, pan y, log zoom, roll in radians. Frame 0 is always zero.
    centres (B, K, T, 2): object centres in the world. shape, present, angle, radius (B, K). colours (B, K, 2, 3).
    background (B, 2, 3): two colours. waves (B, WAVES, 3): the x and y wave number and phase of what marbles them.
    """

    camera: Tensor
    centres: Tensor
    shape: Tensor
    present: Tensor
    angle: Tensor
    radius: Tensor
    colours: Tensor
    background: Tensor
    waves: Tensor
    captions: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Scenes":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}
        return Scenes(**moved)


def sample_scenes(kinds: list[Kind], frames: int, seeds: list[int], movers: int = MAX_OBJECTS) -> Scenes:
    """Draw one scene per (kind, seed): `camera` moves the camera only, `object` objects only, `mixed` both.

    Up to `movers` of a scene's objects move, at least one; the others rest.
    """
    drawn = [_sample_scene(kind, frames, seed, movers) for kind, seed in zip(kinds, seeds, strict=True)]
    stacked: dict[str, Any] = {
        key: torch.from_numpy(np.stack([scene[key] for scene in drawn])) for key in drawn[0] if key != "captions"
    }
    captions = tuple(scene["captions"] for scene in drawn)
    return Scenes(**stacked, captions=captions)


def scene_captions(scenes: Scenes) -> list[str]:
    """Captions of the objects and not of their motion: `a red circle and a blue square on a teal background`."""
    return list(scenes.captions)


def render(scenes: Scenes, width: int, height: int) -> Tensor:
    """Frames (B, T, 3, H, W) in 0..1, with edges `SOFTNESS` wide to both sides."""
    world = _to_world(scenes, _pixel_grid(width, height, scenes.camera))  # (B, T, H, W, 2)
    image = _background(scenes, world)
    for k in range(MAX_OBJECTS):
        offset = world - scenes.centres[:, k, :, None, None, :]
        distance = _signed_distance(offset, scenes.shape[:, k], scenes.angle[:, k], scenes.radius[:, k])  # (B, T, H, W)
        outer, inner = (scenes.colours[:, k, i, None, None, None, :] for i in (0, 1))
        core = _coverage(_core_distance(offset, scenes.angle[:, k], scenes.radius[:, k]))
        alpha = _coverage(distance) * scenes.present[:, k, None, None, None]
        image = torch.lerp(image, torch.lerp(outer, inner, core[..., None]), alpha[..., None])
    return image.permute(0, 1, 4, 2, 3)


def true_tracks(scenes: Scenes, points: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Follow points of frame 0 exactly.

    Args:
        points: (B, N, 2) pixel positions in frame 0 of a `width` x `height` rendering.

    Returns:
        tracks (B, T, N, 2) float32 in pixels; visibility (B, T, N) bool: inside the frame and not covered.
    """
    b, t, n = scenes.camera.shape[0], scenes.camera.shape[1], points.shape[1]
    screen = _pixels_to_units(points.float(), width, height)
    start = _to_world(scenes, screen[:, None].expand(b, t, n, 2)[:, :1, :, None])[:, 0, :, 0]  # frame 0
    owner = _owner(scenes, start[:, None], frame=0)[:, 0]  # (B, N), -1 is the background
    moved = scenes.centres - scenes.centres[:, :, :1]  # (B, K, T, 2)
    shift = torch.zeros(b, t, n, 2, device=points.device)
    for k in range(MAX_OBJECTS):
        shift += (owner == k)[:, None, :, None] * moved[:, k, :, None]
    world = start[:, None] + shift
    x, y = _to_screen(scenes, world).unbind(-1)
    tracks = torch.stack([(x + width / (2 * height)) * height - 0.5, (y + 0.5) * height - 0.5], -1)
    inside = (tracks > -0.5).all(-1) & (tracks[..., 0] < width - 0.5) & (tracks[..., 1] < height - 0.5)
    return tracks, inside & (_owner(scenes, world) == owner[:, None])


def moving_parts(scenes: Scenes, points: Tensor, width: int, height: int) -> Tensor:
    """The part that each pixel position (B, N, 2) of frame 0 belongs to: 0 the scene, k the k-th moving object."""
    screen = _pixels_to_units(points.float(), width, height)
    owner = _owner(scenes, _to_world(scenes, screen[:, None, :, None])[:, :, :, 0], frame=0)[:, 0]  # (B, N)
    moves = (scenes.centres - scenes.centres[:, :, :1]).abs().amax((2, 3)) > 0  # (B, K)
    return torch.where((owner >= 0) & moves.gather(1, owner.clamp(min=0)), owner + 1, 0)


def _sample_scene(kind: Kind, frames: int, seed: int, movers: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    background_name = rng.choice(list(BACKGROUNDS))
    marble_name = rng.choice([name for name in BACKGROUNDS if abs(_grey(name) - _grey(background_name)) > 0.1])
    radius = rng.uniform(0.14, 0.21, MAX_OBJECTS)
    start = _spread(rng, count, radius)
    centres = np.repeat(start[:, None], frames, 1)
    if kind != "camera":
        moving = rng.random(MAX_OBJECTS) < 0.75
        moving[0] = True
        for k in range(min(count, movers)):
            if moving[k]:
                path = _path(rng, frames, speed=rng.uniform(0.02, 0.07))
                centres[k] = _bounce(start[k] + path, limit=np.array([ASPECT / 2 - 0.1, 0.4]))
    camera = np.zeros((frames, 4))
    if kind != "object":
        if rng.random() < 0.65:
            camera[:, :2] = _path(rng, frames, speed=rng.uniform(0.01, 0.05))
        if rng.random() < 0.4 or not camera.any():
            camera[:, 2] = _zoom(rng, frames)
    colour_names = rng.permutation(list(COLOURS))
    shapes = rng.integers(0, len(SHAPES), MAX_OBJECTS)
    named = [
        f"{'an' if colour_names[2 * k] == 'orange' else 'a'} {colour_names[2 * k]} {SHAPES[shapes[k]]}"
        for k in range(count)
    ]
    present = np.arange(MAX_OBJECTS) < count
    scene = {
        "camera": camera,
        "centres": centres,
        "shape": shapes,
        "present": present,
        "angle": rng.uniform(-0.5, 0.5, MAX_OBJECTS),
        "radius": radius,
        "colours": np.array([[COLOURS[colour_names[2 * k]], COLOURS[colour_names[2 * k + 1]]] for k in range(3)]),
        "background": np.array([BACKGROUNDS[background_name], BACKGROUNDS[marble_name]]),
        "waves": _waves(rng),
    }
    arrays = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in scene.items()}
    return arrays | {"captions": f"{' and '.join(named)} on a {background_name} background"}


def _grey(background: str) -> float:
    """Luminance of a background. Two colours of one luminance are one flat surface for a tracker of grey values."""
    return float(np.dot(BACKGROUNDS[background], (0.299, 0.587, 0.114)))


def _spread(rng: np.random.Generator, count: int, radius: np.ndarray) -> np.ndarray:
    """Start centres (K, 2) inside the first frame; the visible ones do not overlap much."""
    best, best_gap = np.zeros((MAX_OBJECTS, 2)), -np.inf
    for _ in range(12):
        centres = rng.uniform(-1, 1, (MAX_OBJECTS, 2)) * (ASPECT / 2 - 0.2, 0.3)
        gap = min(
            (np.hypot(*(centres[i] - centres[j])) - radius[i] - radius[j] for i in range(count) for j in range(i)),
            default=np.inf,
        )
        if gap > best_gap:
            best, best_gap = centres, gap
    return best


def _path(rng: np.random.Generator, frames: int, speed: float) -> np.ndarray:
    """A displacement (T, 2) that starts at 0: straight, curved, shaking, or there and back."""
    t = np.arange(frames - 1)
    form = rng.choice(["straight", "curve", "shake", "return"], p=[0.4, 0.3, 0.15, 0.15])
    turn = rng.uniform(-0.35, 0.35) if form == "curve" else 0.0
    angle = rng.uniform(0, 2 * np.pi) + turn * t
    if form == "shake":
        angle = angle + rng.uniform(0.6, 1.2) * np.sin(2 * np.pi * t / rng.uniform(3, 6) + rng.uniform(0, 6))
    sign = np.where((t // max(3, int(rng.uniform(0.4, 0.7) * 8))) % 2 == 0, 1, -1) if form == "return" else 1
    velocity = speed * (sign * np.stack([np.cos(angle), np.sin(angle)]))
    return np.concatenate([np.zeros((1, 2)), velocity.T.cumsum(0)])


def _zoom(rng: np.random.Generator, frames: int) -> np.ndarray:
    """log zoom (T,) that starts at 0 and swings slowly within about +-0.45."""
    rate = rng.uniform(0.015, 0.06) * rng.choice([-1, 1])
    return 0.45 * np.sin(np.arange(frames) * rate / 0.45)


def _waves(rng: np.random.Generator) -> np.ndarray:
    """Wave numbers and phases (WAVES, 3), all directions, 0.5 to 1.2 frame heights long."""
    number, angle = 2 * np.pi / rng.uniform(0.5, 1.2, WAVES), rng.uniform(0, 2 * np.pi, WAVES)
    return np.stack([number * np.cos(angle), number * np.sin(angle), rng.uniform(0, 2 * np.pi, WAVES)], 1)


def _bounce(path: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Reflect a path (T, 2) at +-limit (2,)."""
    folded = np.mod(path + limit, 4 * limit)
    return np.where(folded > 2 * limit, 4 * limit - folded, folded) - limit


def _pixels_to_units(points: Tensor, width: int, height: int) -> Tensor:
    return (points + 0.5) / height - torch.tensor([width / (2 * height), 0.5], device=points.device)


def _pixel_grid(width: int, height: int, like: Tensor) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(height, device=like.device), torch.arange(width, device=like.device), indexing="ij"
    )
    grid = _pixels_to_units(torch.stack([x, y], -1).float(), width, height)
    return grid.expand(*like.shape[:2], height, width, 2)


def _rotate(xy: Tensor, angle: Tensor) -> Tensor:
    x, y = xy.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _to_world(scenes: Scenes, screen: Tensor) -> Tensor:
    """(B, T, H, W, 2) screen positions to world positions; T may be a prefix of the scene's frames."""
    camera = scenes.camera[:, : screen.shape[1], None, None]
    return _rotate(screen / camera[..., 2:3].exp(), camera[..., 3]) + camera[..., :2]


def _to_screen(scenes: Scenes, world: Tensor) -> Tensor:
    """(B, T, N, 2) world positions to screen positions; the inverse of `_to_world`."""
    camera = scenes.camera[:, :, None]
    return _rotate(world - camera[..., :2], -camera[..., 3]) * camera[..., 2:3].exp()


def _owner(scenes: Scenes, world: Tensor, frame: int | None = None) -> Tensor:
    """Index of the topmost object at world positions (B, T, N, 2), -1 for the background; (B, T, N)."""
    owner = torch.full(world.shape[:-1], -1, device=world.device)
    centres = scenes.centres if frame is None else scenes.centres[:, :, frame : frame + 1]
    for k in range(MAX_OBJECTS):
        offset = (world - centres[:, k, :, None])[..., None, :]
        distance = _signed_distance(offset, scenes.shape[:, k], scenes.angle[:, k], scenes.radius[:, k])[..., 0]
        owner[(distance < 0) & scenes.present[:, k, None, None]] = k
    return owner


def _coverage(distance: Tensor) -> Tensor:
    ramp = (0.5 - distance / (2 * SOFTNESS)).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _signed_distance(offset: Tensor, shape: Tensor, angle: Tensor, radius: Tensor) -> Tensor:
    """Distance (B, T, H, W) of offsets (B, T, H, W, 2) from the outline of each scene's shape; negative inside."""
    r = radius[:, None, None, None]
    x, y = _rotate(offset, -angle[:, None, None, None]).unbind(-1)
    circle = torch.hypot(x, y) - r
    square = torch.maximum(x.abs(), y.abs()) - 0.88 * r
    triangle = torch.maximum(x.abs() * 0.866 - y * 0.5, y) - 0.62 * r
    shape = shape[:, None, None, None]
    return torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))


def _core_distance(offset: Tensor, angle: Tensor, radius: Tensor) -> Tensor:
    """Signed distance from the second-tone disc inside each object."""
    r = radius[:, None, None, None]
    return torch.hypot(*_rotate(offset, -angle[:, None, None, None]).unbind(-1)) - 0.4 * r


def _background(scenes: Scenes, world: Tensor) -> Tensor:
    """Two colours marbled by a sum of waves, smooth everywhere and flat nowhere: (B, T, H, W, 3)."""
    kx, ky, phase = (scenes.waves[:, None, None, None, :, i] for i in range(3))
    field = (world[..., :1] * kx + world[..., 1:] * ky + phase).sin().sum(-1) * (2 / scenes.waves.shape[1]) ** 0.5
    low, high = (scenes.background[:, i, None, None, None] for i in range(2))
    return torch.lerp(low, high, (0.5 + 0.5 * (1.5 * field).tanh())[..., None])

"""Scenes made of pictures, whose motion is known exactly: a photograph as ground, cut-outs on it, a moving camera.

Their functions take and give what those of `models.scenes` do (`models.worlds` names them side by side), and there are
masks. Everything is a function of the seed and of the album. Lengths are in frame heights: the first frame spans x in
[-W/2H, W/2H], y in [-1/2, 1/2], origin at its centre, x right, y down. Frames are 3:2.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.pictures.album import Album
from models.pictures.paths import camera_path, light_path, scattered, seen_box, things_paths
from models.pictures.pieces import REACH, SPRITE_REACH, draw_cutout, draw_ground
from models.scenes import Kind

MAX_OBJECTS = 4
DETAIL = 1.5  # texture pixels per rendered pixel; more is sharper and slower
COUNTS = (0.25, 0.35, 0.25, 0.15)  # probabilities of one to four things; a camera scene may have none
NO_OBJECTS_SHARE = 0.3  # of camera scenes
SHADOW_SHARE, SHADOW = 0.25, (0.15, 0.45)  # how dark
INSIDE = 0.5  # coverage from which a place belongs to a thing


@dataclass(frozen=True)
class PictureScenes:
    """A batch of B scenes of T frames with up to K things; tensors may live on any device.

    ground (B, 3, h, w) and cutouts (B, K, 4, S, S) are uint8 textures, the latter premultiplied RGBA.
    camera (B, T, 4): pan x, pan y, log zoom, roll in radians; frame 0 is zero. centres (B, K, T, 2), angles (B, K, T)
    and growth (B, K, T), log units: where the things are in the world. present (B, K). light (B, T): gain of
    brightness. shadow (B, K, 3): how dark a thing's shadow is, and its offset x, y.
    """

    ground: Tensor
    cutouts: Tensor
    camera: Tensor
    centres: Tensor
    angles: Tensor
    growth: Tensor
    present: Tensor
    light: Tensor
    shadow: Tensor
    captions: tuple[str, ...]

    def to(self, device: torch.device | str) -> "PictureScenes":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}
        return PictureScenes(**moved)


def sample_picture_scenes(
    album: Album, kinds: list[Kind], frames: int, seeds: list[int], height: int, movers: int
) -> PictureScenes:
    """Draw one scene per (kind, seed): `camera` moves the camera only, `object` things only, `mixed` both.

    Args:
        height: pixels of the rendered frames; textures are made `DETAIL` times as fine.
        movers: as many of a scene's things move at most; one does at least.
    """
    drawn = [_sample_scene(album, kind, frames, seed, height, movers) for kind, seed in zip(kinds, seeds, strict=True)]
    stacked: dict[str, Any] = {
        key: torch.from_numpy(np.stack([scene[key] for scene in drawn])) for key in drawn[0] if key != "caption"
    }
    return PictureScenes(**stacked, captions=tuple(scene["caption"] for scene in drawn))


def picture_captions(scenes: PictureScenes) -> list[str]:
    """What is to be seen, never how it moves: `a red apple and a bee on a green meadow`."""
    return list(scenes.captions)


def render_pictures(scenes: PictureScenes, width: int, height: int) -> Tensor:
    """Frames (B, T, 3, H, W) in 0..1."""
    world = _to_world(scenes, _pixel_grid(scenes, width, height))
    image = _look_up(scenes.ground, world / torch.tensor(REACH, device=world.device), "border")
    for k in range(MAX_OBJECTS):
        if not scenes.present[:, k].any():
            continue
        texture = scenes.cutouts[:, k]
        if scenes.shadow[:, k, 0].any():
            dark = _shadow(scenes, world, k)
            image = image * (1 - dark)
        thing = _look_up(texture, _to_thing(scenes, world, k), "zeros")
        image = image * (1 - thing[:, :, 3:]) + thing[:, :, :3]
    return (image * scenes.light[:, :, None, None, None]).clamp(0, 1)


def picture_masks(scenes: PictureScenes, width: int, height: int) -> Tensor:
    """Which pixels show which thing: coverage (B, K, T, H, W) in 0..1, what lies above it taken off."""
    world = _to_world(scenes, _pixel_grid(scenes, width, height))
    shown: list[Tensor] = []
    for k in range(MAX_OBJECTS):
        alpha = _look_up(scenes.cutouts[:, k, 3:], _to_thing(scenes, world, k), "zeros")[:, :, 0]
        shown = [above * (1 - alpha) for above in shown] + [alpha]
    return torch.stack(shown, 1)


def picture_tracks(scenes: PictureScenes, points: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Follow points of frame 0 exactly.

    Args:
        points: (B, N, 2) pixel positions in frame 0 of a `width` x `height` rendering.

    Returns:
        tracks (B, T, N, 2) float32 in pixels; visibility (B, T, N) bool: inside the frame and not covered.
    """
    start = _start(scenes, points, width, height)  # (B, 1, 1, N, 2)
    owner = _owner(scenes, start)[:, :, 0]  # (B, 1, N)
    world = start[:, :, 0].expand(-1, scenes.camera.shape[1], -1, -1)
    for k in range(MAX_OBJECTS):
        centre, angle, growth = (value[:, k] for value in (scenes.centres, scenes.angles, scenes.growth))
        turn, scale = angle - angle[:, :1], (growth - growth[:, :1]).exp()
        offset = start[:, :, 0] - centre[:, :1, None]
        moved = centre[:, :, None] + _rotate(offset.expand_as(world), turn[:, :, None]) * scale[:, :, None, None]
        world = torch.where((owner == k)[..., None], moved, world)
    x, y = _to_screen(scenes, world).unbind(-1)
    tracks = torch.stack([(x + width / (2 * height)) * height - 0.5, (y + 0.5) * height - 0.5], -1)
    inside = (tracks > -0.5).all(-1) & (tracks[..., 0] < width - 0.5) & (tracks[..., 1] < height - 0.5)
    now = _owner(scenes, world[:, :, None])[:, :, 0]
    covered = now > owner  # a thing's own place may miss its rim by rounding; what lies above it counts
    return tracks, inside & ~covered


def picture_parts(scenes: PictureScenes, points: Tensor, width: int, height: int) -> Tensor:
    """What each pixel position (B, N, 2) of frame 0 moves with: 0 the scene, k the k-th of the things that move."""
    owner = _owner(scenes, _start(scenes, points, width, height))[:, 0, 0]
    paths = torch.cat([scenes.centres, scenes.angles[..., None], scenes.growth[..., None]], -1)
    moves = (paths - paths[:, :, :1]).abs().amax((2, 3)) > 0  # (B, K)
    return torch.where((owner >= 0) & moves.gather(1, owner.clamp(min=0)), owner + 1, 0)


def _sample_scene(album: Album, kind: Kind, frames: int, seed: int, height: int, movers: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    detail = DETAIL * height
    camera = camera_path(rng, kind, frames)
    ground, picture = draw_ground(rng, album, seen_box(camera), detail)
    count = 1 + int(rng.choice(len(COUNTS), p=COUNTS))
    if kind == "camera" and rng.random() < NO_OBJECTS_SHARE:
        count = 0
    centres, angles, growth = things_paths(rng, kind, frames, scattered(rng, MAX_OBJECTS), min(movers, max(1, count)))
    shadow = np.zeros((MAX_OBJECTS, 3))
    if rng.random() < SHADOW_SHARE:
        shadow[:count] = [rng.uniform(*SHADOW), rng.uniform(-0.04, 0.04), rng.uniform(0.01, 0.05)]
    things = [draw_cutout(rng, album, detail) for _ in range(count)]
    side = round(2 * SPRITE_REACH * detail)
    cutouts = np.zeros((MAX_OBJECTS, side, side, 4), np.uint8)
    for k, (texture, _) in enumerate(things):
        cutouts[k] = texture
    names = " and ".join(label for _, label in things)
    arrays = {"camera": camera, "centres": centres, "angles": angles, "growth": growth, "shadow": shadow}
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    return arrays | {
        "ground": ground.transpose(2, 0, 1),
        "cutouts": cutouts.transpose(0, 3, 1, 2),
        "present": np.arange(MAX_OBJECTS) < count,
        "light": light_path(rng, frames).astype(np.float32),
        "caption": f"{names} on {picture.label}" if names else picture.label,
    }


def _shadow(scenes: PictureScenes, world: Tensor, k: int) -> Tensor:
    """How dark thing k makes each place: (B, T, 1, H, W); its blurred coverage, moved aside."""
    alpha = scenes.cutouts[:, k, 3:].float()
    radius = alpha.shape[-1] // 24
    soft = F.avg_pool2d(alpha, 2 * radius + 1, 1, radius, count_include_pad=True)
    offset = scenes.shadow[:, k, None, None, None, 1:]
    return _look_up(soft, _to_thing(scenes, world - offset, k), "zeros") * scenes.shadow[:, k, 0].view(-1, 1, 1, 1, 1)


def _look_up(texture: Tensor, place: Tensor, padding: str) -> Tensor:
    """(B, T, C, H, W) in 0..1: a texture (B, C, h, w) in 0..255 at places (B, T, H, W, 2) in -1..1."""
    b, t, height, width, _ = place.shape
    flat = place.reshape(b, t * height, width, 2)
    found = F.grid_sample(texture.float() / 255, flat, "bilinear", padding, align_corners=False)
    return found.unflatten(2, (t, height)).transpose(1, 2)


def _to_thing(scenes: PictureScenes, world: Tensor, k: int) -> Tensor:
    """World positions (B, T, H, W, 2) as places in the texture of thing k, -1..1 inside it."""
    centre = scenes.centres[:, k, : world.shape[1], None, None]
    angle, growth = (value[:, k, : world.shape[1], None, None] for value in (scenes.angles, scenes.growth))
    return _rotate(world - centre, -angle) / (SPRITE_REACH * growth.exp()[..., None])


def _owner(scenes: PictureScenes, world: Tensor) -> Tensor:
    """Index of the topmost thing at world positions (B, T, H, W, 2), -1 for the ground; T may be a prefix."""
    owner = torch.full(world.shape[:-1], -1, device=world.device)
    for k in range(MAX_OBJECTS):
        alpha = _look_up(scenes.cutouts[:, k, 3:], _to_thing(scenes, world, k), "zeros")[:, :, 0]
        owner[alpha > INSIDE] = k
    return owner


def _start(scenes: PictureScenes, points: Tensor, width: int, height: int) -> Tensor:
    screen = (points.float() + 0.5) / height - torch.tensor([width / (2 * height), 0.5], device=points.device)
    return _to_world(scenes, screen[:, None, None])


def _pixel_grid(scenes: PictureScenes, width: int, height: int) -> Tensor:
    device = scenes.camera.device
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    screen = (torch.stack([x, y], -1) + 0.5) / height - torch.tensor([width / (2 * height), 0.5], device=device)
    return screen.expand(*scenes.camera.shape[:2], height, width, 2)


def _rotate(xy: Tensor, angle: Tensor) -> Tensor:
    x, y = xy.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _to_world(scenes: PictureScenes, screen: Tensor) -> Tensor:
    """(B, T, H, W, 2) screen positions to world positions; T may be a prefix of the scene's frames."""
    camera = scenes.camera[:, : screen.shape[1], None, None]
    return _rotate(screen / camera[..., 2:3].exp(), camera[..., 3]) + camera[..., :2]


def _to_screen(scenes: PictureScenes, world: Tensor) -> Tensor:
    """(B, T, N, 2) world positions to screen positions; the inverse of `_to_world`."""
    camera = scenes.camera[:, :, None]
    return _rotate(world - camera[..., :2], -camera[..., 3]) * camera[..., 2:3].exp()

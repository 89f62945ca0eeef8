"""Grounds and cut-outs of one scene, as small pixel arrays: crops of the album's pictures, drawn from a generator.

Lengths are in frame heights, as in `models.scenes`. `detail` is in texture pixels per frame height: about 1.5 times the
pixels that a frame height will be rendered at, so that rendering neither blurs nor aliases.
"""

import cv2
import numpy as np

from models.pictures.album import Album, Picture

REACH = (1.5, 1.0)  # the ground reaches from minus to plus this, x and y: twice the first frame
SPRITE_REACH = 0.36  # half the side of a cut-out's square texture
SIZES = (0.2, 0.62)  # longer side of a cut-out, frame heights
PHOTOGRAPH_SHARE = 0.8  # of grounds; the others are patterns, where the split has any
PIECE_SHARE = 0.35  # of cut-outs that are pieces of photographs under random outlines
MAX_ENLARGED = 1.25  # how far a small picture may be scaled up
WAVES = 5  # of a random outline
EDGE = 1.6  # texture pixels over which a random outline fades
DIM = (0.8, 1.25)  # gamma of a picture, from .. to
TINT = 0.1  # gain of each colour, at most, up or down


def draw_ground(rng: np.random.Generator, album: Album, box: np.ndarray, detail: float) -> tuple[np.ndarray, Picture]:
    """A texture (2 * 1.0 * detail, 2 * 1.5 * detail, 3) uint8 whose part in `box` shows a crop of one picture.

    Args:
        box: (2, 2): lower and upper corner of what the camera will see, frame heights, within `REACH`.
    """
    some = album.photographs if rng.random() < PHOTOGRAPH_SHARE or not album.patterns else album.patterns
    picture = some[int(rng.integers(len(some)))]
    pixels = album.pixels(picture)
    width, height = (round(2 * reach * detail) for reach in REACH)
    low = np.floor((box[0] + REACH) * detail).astype(int).clip(0, [width - 2, height - 2])
    high = np.ceil((box[1] + REACH) * detail).astype(int).clip(low + 2, [width, height])
    size = high - low
    largest = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    smallest = min(1 / MAX_ENLARGED, largest)
    crop = _crop(rng, pixels, size, smallest * (largest / smallest) ** (rng.random() ** 0.5))
    texture = np.zeros((height, width, 3), np.uint8)
    texture[low[1] : high[1], low[0] : high[0]] = _toned(rng, crop)
    return texture, picture


def draw_cutout(rng: np.random.Generator, album: Album, detail: float) -> tuple[np.ndarray, str]:
    """A premultiplied texture (S, S, 4) uint8 with one thing in its middle, and its label."""
    side = round(2 * SPRITE_REACH * detail)
    longer = rng.uniform(*SIZES) * detail
    if rng.random() < PIECE_SHARE:
        thing, label = _piece(rng, album, longer)
    else:
        picture = album.cutouts[int(rng.integers(len(album.cutouts)))]
        pixels = album.pixels(picture)
        scale = longer / max(pixels.shape[:2])
        size = tuple(max(2, round(s * scale)) for s in pixels.shape[1::-1])
        thing = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        thing, label = _toned(rng, thing), picture.label
    if rng.random() < 0.5:
        thing = thing[:, ::-1]
    texture = np.zeros((side, side, 4), np.uint8)
    top, left = (side - thing.shape[0]) // 2, (side - thing.shape[1]) // 2
    texture[top : top + thing.shape[0], left : left + thing.shape[1]] = thing
    return texture, label


def _piece(rng: np.random.Generator, album: Album, longer: float) -> tuple[np.ndarray, str]:
    """A piece of a photograph under a smooth random outline, premultiplied (h, w, 4)."""
    grounds = [*album.photographs, *album.patterns]
    picture = grounds[int(rng.integers(len(grounds)))]
    pixels = album.pixels(picture)
    size = np.array([longer, longer * rng.uniform(0.55, 1)]).round().astype(int)
    largest = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    crop = _crop(rng, pixels, size, max(1.0, largest * rng.uniform(0.1, 0.6)))
    alpha = _outline(rng, *size)
    colours = _toned(rng, crop) * alpha[..., None]
    return np.concatenate([colours, 255 * alpha[..., None]], -1).round().astype(np.uint8), f"a piece of {picture.label}"


def _outline(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Coverage (h, w) in 0..1 of a closed curve around the middle: an ellipse whose radius is a sum of waves."""
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    strength = rng.uniform(-1, 1, WAVES) * 0.35 / np.arange(1, WAVES + 1)
    phase = rng.uniform(0, 2 * np.pi, WAVES)
    waves = sum(s * np.cos((k + 2) * angle + p) for k, (s, p) in enumerate(zip(strength, phase, strict=True)))
    limit = 1 + waves
    limit = limit * 0.97 / limit.max()
    return np.clip((limit - radius) * min(width, height) / (2 * EDGE) + 0.5, 0, 1)


def _crop(rng: np.random.Generator, pixels: np.ndarray, size: np.ndarray, scale: float) -> np.ndarray:
    """`size` (w, h) texture pixels of a picture, `scale` of its pixels to one of them; perhaps mirrored."""
    span = np.minimum(np.maximum(1, np.round(size * scale)), pixels.shape[1::-1]).astype(int)
    left, top = (int(rng.integers(0, room + 1)) for room in np.array(pixels.shape[1::-1]) - span)
    part = pixels[top : top + span[1], left : left + span[0]]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(part), (int(size[0]), int(size[1])), interpolation=method)


def _toned(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Another gamma and tint for (h, w, 3) or premultiplied (h, w, 4), which keeps its alpha."""
    gamma = np.exp(rng.uniform(*np.log(DIM)))
    gains = 1 + rng.uniform(-TINT, TINT, 3)
    if pixels.shape[2] == 3:
        levels = (np.arange(256) / 255) ** gamma
        table = np.clip(255 * levels[:, None] * gains, 0, 255).round().astype(np.uint8)
        return np.stack([table[:, c][pixels[..., c]] for c in range(3)], -1)
    alpha = pixels[..., 3:].astype(np.float32)
    colours = pixels[..., :3] / np.maximum(alpha, 1)
    toned = np.clip(colours.clip(0, 1) ** gamma * gains, 0, 1) * alpha
    return np.concatenate([toned, alpha], -1).round().astype(np.uint8)

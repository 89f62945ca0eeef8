"""One picture file to the pixels of the album, or None: pure functions of a decoded picture."""

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.pictures.album import CUTOUT_SIDE, GROUND_SIDE, Split

EMOJI_SIZE = 109  # pixels; the one size that this font's pictures have
MIN_GROUND = (400, 285)  # pixels, long and short side
MIN_CUTOUT = 48  # pixels of the longer side; smaller drawings are icons
MAX_ASPECT = 4.0
COVERAGE = (0.15, 0.95)  # of its rectangle that a cut-out may fill; above it is a picture in a frame
ONE_THING = 0.8  # of its area that a cut-out's largest piece must have, so that it is one thing
TWINS = 5  # bits of 64 by which two grounds' hashes may differ and still be the same picture
NOT_THINGS = ("digit", "regional", "squared", "negative", "circled", "tag ", "variation")
TENTHS: tuple[Split, ...] = ("test", "test", "validation", *("train",) * 7)


def split_of(sha256: str, kind: str) -> Split:
    """By content: a fifth of the photographs to test, a tenth to validation; of cut-outs a tenth each."""
    tenth = int(sha256[:8], 16) % 10
    if kind == "pattern" or (kind == "cutout" and tenth == 0):
        return "train"
    return TENTHS[tenth]


def ground(image: Image.Image) -> np.ndarray | None:
    """(H, W, 3) uint8, scaled to `GROUND_SIDE` at most; None if it is too small."""
    if max(image.size) < MIN_GROUND[0] or min(image.size) < MIN_GROUND[1]:
        return None
    image.draft("RGB", (2 * GROUND_SIDE, 2 * GROUND_SIDE))
    return _fit(np.asarray(image.convert("RGB")), GROUND_SIDE)


def cutout(image: Image.Image) -> np.ndarray | None:
    """(H, W, 4) uint8, premultiplied, cut to its content; None if it is not one thing on nothing."""
    image = _with_alpha(image)
    if image.mode != "RGBA":
        return None
    rgba = np.asarray(image)
    solid = rgba[..., 3] > 127
    if not solid.any():
        return None
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    rgba, solid = rgba[box], solid[box]
    height, width = solid.shape
    if max(height, width) < MIN_CUTOUT or max(height, width) > MAX_ASPECT * min(height, width):
        return None
    if not COVERAGE[0] <= solid.mean() <= COVERAGE[1]:
        return None
    areas = cv2.connectedComponentsWithStats(solid.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    if areas.max() < ONE_THING * areas.sum():
        return None
    alpha = rgba[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:]], -1)
    return _fit(premultiplied.round().astype(np.uint8), CUTOUT_SIDE)


def emoji(font_file: Path) -> Iterator[tuple[str, Image.Image]]:
    """(name, picture with alpha) of every character of a colour font that has a picture of its own."""
    from fontTools.ttLib import TTFont

    font = ImageFont.truetype(str(font_file), EMOJI_SIZE)
    for code in sorted(TTFont(font_file).getBestCmap()):
        name = unicodedata.name(chr(code), "").lower()
        if code < 0x2600 or not name or name.startswith(NOT_THINGS):
            continue
        image = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(image).text((12, 12), chr(code), font=font, embedded_color=True)
        yield f"{'an' if name[0] in 'aeiou' else 'a'} {name}", image


def difference_hash(pixels: np.ndarray) -> int:
    """A 64-bit difference hash of (H, W, 3): the same for the same picture at another size or quality."""
    small = cv2.resize(cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int("".join("01"[int(bit)] for bit in (small[:, 1:] > small[:, :-1]).ravel()), 2)


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _with_alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA") if image.mode in ("P", "LA", "PA") or "transparency" in image.info else image


def _fit(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

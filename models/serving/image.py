"""Pictures that users bring: a file, or base64 text in a request. They become upright RGB."""

import base64
import binascii
import io
import threading
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from models.errors import UserError
from models.geometry import Size, cover_crop
from models.sampling.picture import SeenPicture, as_seen

MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_ASPECT = 32 * 2**20, 8192, 8
DECODING = threading.Semaphore(1)  # pictures of requests that are in memory at their full size, at most


class ImageError(UserError):
    """A picture that cannot be used; the message begins with the field or option and gives the reason."""


class FramedPicture(NamedTuple):
    """image: RGB, scaled and cropped to the model's frame. size: width and height before that, upright.

    cropped: what was cut off, in pixels of that size; empty if nothing was. notes: see `SeenPicture`.
    """

    image: Image.Image
    size: Size
    cropped: str
    notes: tuple[str, ...]


def read_image(path: Path) -> SeenPicture:
    """A picture of a file, upright RGB, with notes on what was changed.

    Raises:
        ImageError: the file is missing or no picture, or its pixels have no defined brightness.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return as_seen(picture)
    except FileNotFoundError:
        raise ImageError(f"--image: {path}: no such file") from None
    except UserError as error:
        raise ImageError(f"--image: {path}: {str(error).removeprefix('image: ')}") from None
    except Exception:  # damaged metadata makes Pillow raise errors of many kinds
        raise ImageError(f"--image: {path}: not a readable picture") from None


def decode_image(text: str, frame: Size, max_pixels: int) -> FramedPicture:
    """A base64 PNG or JPEG at the size of the model's frame. One picture at a time is in memory at its full size.

    Args:
        frame: width and height of the model's frame.
        max_pixels: width x height that a picture may have.

    Raises:
        ImageError: no base64, no such picture, damaged, too large, or too long for its width.
    """
    with DECODING:
        (image, notes, sideways), full = _decoded(text, max_pixels, 2 * max(frame))
        size = (full[1], full[0]) if sideways else full
        return FramedPicture(
            cover_crop(image.size, frame).image(image), size, cover_crop(size, frame).describe(), notes
        )


def decode_whole_image(text: str, max_pixels: int) -> SeenPicture:
    """A base64 PNG or JPEG at its own size, upright RGB. Raises ImageError, see `decode_image`."""
    return _decoded(text, max_pixels, MAX_IMAGE_SIDE)[0]


def _decoded(text: str, max_pixels: int, side: int) -> tuple[SeenPicture, Size]:
    """The picture, and the size of its file. A JPEG is decoded smaller at once if `side` pixels a side are enough."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("image: not valid base64") from None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            _check_size(picture.size, max_pixels)
            full = picture.size
            picture.draft(picture.mode, (side, side))
            picture.load()
            return as_seen(picture), full
    except UserError:
        raise
    except Exception:  # damaged metadata makes Pillow raise errors of many kinds
        raise ImageError("image: not a readable PNG or JPEG") from None


def _check_size(size: Size, max_pixels: int) -> None:
    short, long = sorted(size)
    if long > MAX_IMAGE_SIDE or long > MAX_ASPECT * short:
        raise ImageError(
            f"image: {size[0]}x{size[1]} pixels; sides up to {MAX_IMAGE_SIDE} and a ratio up to {MAX_ASPECT}:1 are "
            "allowed"
        )
    if short * long > max_pixels:
        raise ImageError(f"image: {size[0]}x{size[1]} pixels; up to {max_pixels} pixels are allowed, scale it down")

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
MAX_SCANS = 100  # passes over the pixels of a progressive JPEG; cameras and editors write about ten, each costs time
START_OF_SCAN = b"\xff\xda"
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


class PixelBudget:
    """The pixels, width x height, that the pictures of one request may have together."""

    def __init__(self, most: int):
        self._most = self._left = most

    def take(self, size: Size) -> None:
        """Count a picture before it is decoded. Raises ImageError if it is too much."""
        pixels = size[0] * size[1]
        if pixels > self._left:
            raise ImageError(
                f"image: {size[0]}x{size[1]} pixels; the pictures of a request may have {self._most} pixels together, "
                "scale them down"
            )
        self._left -= pixels


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


def decode_image(text: str, frame: Size, budget: PixelBudget) -> FramedPicture:
    """A base64 PNG or JPEG at the size of the model's frame. One picture at a time is in memory at its full size.

    Args:
        frame: width and height of the model's frame.
        budget: what is left for this picture and those after it.

    Raises:
        ImageError: no base64, no such picture, damaged, too large, or too long for its width.
    """
    with DECODING:
        (image, notes, sideways), full = _decoded(text, budget, 2 * max(frame))
        size = (full[1], full[0]) if sideways else full
        return FramedPicture(
            cover_crop(image.size, frame).image(image), size, cover_crop(size, frame).describe(), notes
        )


def decode_whole_image(text: str, budget: PixelBudget) -> SeenPicture:
    """A base64 PNG or JPEG at its own size, upright RGB. Raises ImageError, see `decode_image`."""
    return _decoded(text, budget, MAX_IMAGE_SIDE)[0]


def _decoded(text: str, budget: PixelBudget, side: int) -> tuple[SeenPicture, Size]:
    """The picture, and the size of its file. A JPEG is decoded smaller at once if `side` pixels a side are enough."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("image: not valid base64") from None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            _check_sides(picture.size)
            budget.take(picture.size)
            if picture.format == "JPEG" and data.count(START_OF_SCAN) > MAX_SCANS:
                raise ImageError(f"image: a JPEG of more than {MAX_SCANS} scans; save it as a baseline JPEG")
            full = picture.size
            picture.draft(picture.mode, (side, side))
            picture.load()
            return as_seen(picture), full
    except UserError:
        raise
    except Exception:  # damaged metadata makes Pillow raise errors of many kinds
        raise ImageError("image: not a readable PNG or JPEG") from None


def _check_sides(size: Size) -> None:
    short, long = sorted(size)
    if long > MAX_IMAGE_SIDE or long > MAX_ASPECT * short:
        raise ImageError(
            f"image: {size[0]}x{size[1]} pixels; sides up to {MAX_IMAGE_SIDE} and a ratio up to {MAX_ASPECT}:1 are "
            "allowed"
        )

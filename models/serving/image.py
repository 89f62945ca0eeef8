"""Pictures that users bring: a file, or base64 text in a request. They become upright RGB."""

import base64
import binascii
import io
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from models.errors import UserError

MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_ASPECT = 32 * 2**20, 8192, 8


class ImageError(UserError):
    """A picture that cannot be used; the message begins with the field or option and gives the reason."""


def read_image(path: Path) -> Image.Image:
    """An upright RGB picture of a file.

    Raises:
        ImageError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise ImageError(f"--image: {path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        raise ImageError(f"--image: {path}: not a readable picture") from None


def decode_image(text: str) -> Image.Image:
    """A base64 PNG or JPEG as an upright RGB picture.

    Raises:
        ImageError: no base64, no such picture, damaged, too large, or too long for its width.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("image: not valid base64") from None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            short, long = sorted(picture.size)
            if long > MAX_IMAGE_SIDE or long > MAX_ASPECT * short:
                raise ImageError(
                    f"image: {picture.width}x{picture.height} pixels; sides up to {MAX_IMAGE_SIDE} and a ratio up to "
                    f"{MAX_ASPECT}:1 are allowed"
                )
            picture.load()
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ImageError("image: not a readable PNG or JPEG") from None

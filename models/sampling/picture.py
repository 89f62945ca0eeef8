"""A picture as the eye sees it: upright, without transparency, RGB with 8 bits a channel."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from models.errors import UserError

ORIENTATION = 0x0112  # EXIF tag: how the picture is turned or mirrored for display
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_WHITE = "image: transparent; it was laid over white"


class PictureError(UserError):
    """A picture whose pixels have no defined appearance; the message begins with `image`."""


class SeenPicture(NamedTuple):
    """image: upright RGB. notes: what was done that its owner may not expect, one sentence each.

    sideways: whether turning it upright has exchanged width and height.
    """

    image: Image.Image
    notes: tuple[str, ...]
    sideways: bool


def as_seen(picture: Image.Image) -> SeenPicture:
    """Turn a picture upright and bring it to 8-bit RGB; transparent parts are laid over white.

    Grey pictures of 16 bits are scaled to 8 bits. A damaged EXIF block counts as none.

    Raises:
        PictureError: the pixels are floating-point numbers or integers of more than 16 bits.
    """
    orientation = _orientation(picture)
    turned = TURNED.get(orientation)
    notes: tuple[str, ...] = ()
    if picture.mode == "F":
        raise PictureError("image: floating-point pixels have no defined brightness; save it as 8-bit PNG or JPEG")
    if picture.mode.startswith("I"):
        image = _eight_bits(picture).convert("RGB")
    elif picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        image = Image.new("RGB", coloured.size, "white")
        image.paste(coloured, mask=coloured.getchannel("A"))
        if coloured.getchannel("A").getextrema()[0] != 255:
            notes = (ON_WHITE,)
    else:
        image = picture if picture.mode == "RGB" else picture.convert("RGB")
    return SeenPicture(image.transpose(turned) if turned is not None else image, notes, orientation >= 5)


def _eight_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError("image: pixels of more than 16 bits; save it as 8-bit PNG or JPEG")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _orientation(picture: Image.Image) -> int:
    """The orientation of the EXIF block, 1 if there is none or it is damaged.

    Pillow's reader raises errors of many kinds for damaged blocks, `struct.error` and `KeyError` among them.
    """
    try:
        orientation = int(picture.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1
    return orientation if orientation in TURNED else 1

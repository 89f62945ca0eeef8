"""The album: all fetched pictures, decoded and scaled down, in one uint8 file that is memory-mapped.

    pictures.u8        the pixels of every picture, one after another, rows first
    manifest.parquet   a row for each picture: what it is, where it came from, and where its pixels lie

Photographs and patterns are RGB, at most `GROUND_SIDE` pixels long. Cut-outs are RGBA with premultiplied colours, cut
to what is not transparent, at most `CUTOUT_SIDE` pixels long.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import UserError

Split = Literal["train", "validation", "test"]

PIXELS_FILE = "pictures.u8"
MANIFEST_FILE = "manifest.parquet"
GROUND_SIDE = 1536
CUTOUT_SIDE = 160
FOLDER = Path("data/pictures")


class AlbumError(UserError):
    """An album that cannot be used; the message names the folder and the command that makes one."""


@dataclass(frozen=True)
class Picture:
    """One picture of the album. sha256 is of the file; offset, height, width, channels say where its pixels lie."""

    sha256: str
    package: str
    file: str
    licence: str
    kind: str
    label: str
    split: str
    offset: int
    height: int
    width: int
    channels: int


class Album:
    """The pictures of a split: `photographs`, `patterns` (of the training split only) and `cutouts`."""

    def __init__(self, folder: str | Path, split: Split):
        """Open an album.

        Raises:
            AlbumError: there is none in `folder`, or it has no photographs or no cut-outs in this split.
        """
        self.folder, self.split = Path(folder), split
        rows = [Picture(**row) for row in pq.read_table(_manifest(self.folder)).to_pylist()]
        mine = [row for row in rows if row.split == split]
        self.photographs = [row for row in mine if row.kind == "photograph"]
        self.patterns = [row for row in mine if row.kind == "pattern"]
        self.cutouts = [row for row in mine if row.kind == "cutout"]
        if not self.photographs or not self.cutouts:
            counts = f"{len(self.photographs)} photographs and {len(self.cutouts)} cut-outs"
            raise AlbumError(f"{self.folder}: {split} has {counts}; fetch more packages")
        self._pixels = np.memmap(self.folder / PIXELS_FILE, dtype=np.uint8, mode="r")

    def pixels(self, picture: Picture) -> np.ndarray:
        """(H, W, C) uint8, a view into the memory-mapped file."""
        size = picture.height * picture.width * picture.channels
        flat = self._pixels[picture.offset : picture.offset + size]
        return flat.reshape(picture.height, picture.width, picture.channels)

    def labels(self) -> list[str]:
        """Every label once, in alphabetical order."""
        return sorted({picture.label for picture in [*self.photographs, *self.patterns, *self.cutouts]})


def content_of_album(folder: str | Path) -> str:
    """SHA-256 of the album's manifest, which names the hash of every picture. Raises AlbumError: there is no album."""
    return hashlib.sha256(_manifest(Path(folder)).read_bytes()).hexdigest()


def _manifest(folder: Path) -> Path:
    file = folder / MANIFEST_FILE
    if not file.is_file():
        raise AlbumError(f"{folder}: no {MANIFEST_FILE}; `python -m models.pictures.fetch` makes it")
    return file


def write_album(folder: Path, pictures: list[tuple[dict[str, Any], np.ndarray]]) -> None:
    """Write an album of (row without offset and size, pixels (H, W, C) uint8); an old one is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, offset = [], 0
    temporary = folder / f"{PIXELS_FILE}.tmp"
    with temporary.open("wb") as file:
        for row, pixels in pictures:
            height, width, channels = pixels.shape
            rows.append({**row, "offset": offset, "height": height, "width": width, "channels": channels})
            offset += file.write(np.ascontiguousarray(pixels).tobytes())
    temporary.replace(folder / PIXELS_FILE)
    pq.write_table(pa.Table.from_pylist(rows), folder / MANIFEST_FILE)

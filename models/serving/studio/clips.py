"""Curated clips of the pipeline, whose motion can become strokes: files, or members of its uncompressed ZIP shards."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from models.errors import UserError

MOST_CLIPS = 500  # that the page offers


class ClipShelf:
    """The `.mp4` clips of a folder, by file name."""

    def __init__(self, folder: Path):
        self._folder = folder

    def names(self) -> list[str]:
        """Names of the first clips; none if there is no folder."""
        return sorted(name for name, _ in self._places())[:MOST_CLIPS]

    def file(self, name: str, into: Path) -> Path:
        """A clip as a file, which is written into a folder if a shard holds it. Raises UserError if it is gone."""
        shard = next((shard for known, shard in self._places() if known == name), None)
        if shard is None:
            raise UserError(f"clip: {name} is gone; choose another")
        if shard == self._folder / name:
            return shard
        path = into / name
        with zipfile.ZipFile(shard) as packed:
            path.write_bytes(packed.read(name))
        return path

    def _places(self) -> Iterator[tuple[str, Path]]:
        """Each clip and the file that holds it. Damaged shards are left out."""
        for path in self._folder.glob("*.mp4"):
            yield path.name, path
        for shard in self._folder.glob("*.zip"):
            try:
                with zipfile.ZipFile(shard) as packed:
                    members = packed.namelist()
            except (OSError, zipfile.BadZipFile):
                continue
            yield from ((name, shard) for name in members if name.endswith(".mp4") and Path(name).name == name)

"""Sharded items: a fixed number of files for any number of items, so that DVC lists hundreds of files, not a million.

    folder.prepare(wanted, recipe)   # the items that are missing
    ...                              # each is written as a file of its own, whole or absent: a killed run loses none
    folder.pack(wanted)              # the files become part of their shards
    read_item(folder.path(item))     # from its file or its shard

A shard is an uncompressed ZIP. Its central directory is the index: one item is read without reading the others. The
shard of an item follows from a hash of the item's name, so one more item rewrites one shard. The same items give the
same bytes in any order of work.
"""

import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile, ZipFile, ZipInfo

from models.errors import UserError
from stages.data.items import ItemFolder, flush_to_disk, remove_leftovers, temporary_file

SHARDS = 128  # files per folder at most; more makes an added item cheaper and lets DVC see more files
INDEXES_IN_MEMORY = 8 * SHARDS  # indexes of shards that a process keeps, 0.2 KB for each item
_LOCAL_HEADER = 30  # bytes of a member's own header before its name and its extra field, whose sizes end the header
_EPOCH = 1980, 1, 1, 0, 0, 0  # the time of every member: when an item was made must not change the shard


class ShardError(UserError):
    """A shard is damaged."""


class Member(NamedTuple):
    """Where an item lies in its shard: offset of its header in bytes, its size in bytes, its CRC-32."""

    header: int
    size: int
    checksum: int


class ShardedItems(ItemFolder):
    """A folder of items of which each is a file `<id><suffix>` while a stage runs, then a member of a shard."""

    def has(self, item: str) -> bool:
        return is_there(self.path(item))

    def ids(self) -> set[str]:
        """Names of all items, packed or not."""
        names = {name for shard in self._shards() for name in _members(shard)}
        return self.files() | {name.removesuffix(self.suffix) for name in names}

    def prepare(self, wanted: Iterable[str], recipe: str) -> list[str]:
        """Remove items of another recipe, or left by a killed run. Return the missing items.

        Packed items that are not wanted stay until `pack`, which rewrites their shard once.
        """
        if self.recipe() != recipe:
            for shard in self._shards():
                shard.unlink()
        return super().prepare(wanted, recipe)

    def read(self, items: Iterable[str], size: int | None = None) -> Iterator[tuple[str, bytes]]:
        """The bytes of many items, each shard opened once; with `size`, only so many from the beginning of each.

        Items that are not there are left out. Raises ShardError if a shard is damaged.
        """
        wanted = dict.fromkeys(items)
        loose = self.files() & wanted.keys()
        for item in loose:
            yield item, read_item(self.path(item), size)
        for shard in self._shards():
            members = {name.removesuffix(self.suffix): member for name, member in _members(shard).items()}
            names = [name for name in members if name in wanted and name not in loose]
            if names:
                with open(shard, "rb") as file:
                    for name in names:
                        yield name, _read_member(file, members[name], f"{name}{self.suffix}", size)

    def pack(self, wanted: Iterable[str]) -> None:
        """Move the files of items into their shards, and leave out all items that are not wanted.

        Only shards whose items change are written, each under a temporary name and then renamed. The files are removed
        after that: whenever a run is killed, every item is whole in one place at least.
        """
        names = {f"{item}{self.suffix}" for item in wanted}
        files: dict[Path, list[Path]] = defaultdict(list)
        for item in self.files():
            files[shard_of(self.path(item))].append(self.path(item))
        for shard in {*files, *self._shards()}:
            if shard in files or _members(shard).keys() - names:
                self._write(shard, files[shard], names)
        remove_leftovers(self.folder)

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_name('*')}"))

    def _write(self, shard: Path, files: list[Path], names: set[str]) -> None:
        loose = {path.name: path for path in files}
        members = sorted((_members(shard).keys() | loose.keys()) & names)
        if members:
            with temporary_file(self.folder, shard.name) as temporary:
                with ZipFile(temporary, "w") as archive:
                    for name in members:
                        info = ZipInfo(name, _EPOCH)
                        info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every system
                        archive.writestr(info, read_item(loose.get(name, self.folder / name)))
                flush_to_disk(temporary)  # before its items' files are removed
                os.replace(temporary, shard)
        else:
            shard.unlink(missing_ok=True)
        for path in files:
            path.unlink()


def shard_of(path: Path) -> Path:
    """The shard of an item, from the path that the item has as a file of its own."""
    number = int.from_bytes(hashlib.sha256(path.stem.encode()).digest()[:4], "big") % SHARDS
    return path.parent / _name(f"{number:03d}")


def is_there(path: Path) -> bool:
    """Whether there is an item, as a file of its own or in its shard."""
    return path.exists() or path.name in _members(shard_of(path))


def read_item(path: Path, size: int | None = None) -> bytes:
    """The bytes of an item, of its file or else of its shard; with `size`, only so many from its beginning.

    Raises:
        FileNotFoundError: there is no such item.
        ShardError: the shard is damaged.
    """
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        shard = shard_of(path)
        member = _members(shard).get(path.name)
        if member is None:
            raise
    with open(shard, "rb") as file:
        return _read_member(file, member, path.name, size)


def _read_member(file: BinaryIO, member: Member, name: str, size: int | None) -> bytes:
    """The bytes of a member, or `size` of them, from its open shard."""
    wanted = member.size if size is None else min(size, member.size)
    file.seek(member.header + _LOCAL_HEADER - 4)
    sizes = file.read(4)
    file.seek(int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little"), os.SEEK_CUR)
    data = file.read(wanted)
    if len(data) != wanted or (wanted == member.size and zlib.crc32(data) != member.checksum):
        raise ShardError(f"{file.name}: damaged: {name} is not what was written; delete it and run its stage again")
    return data


@contextmanager
def as_file(path: Path, folder: Path) -> Iterator[Path]:
    """An item as a file: its own, or else a temporary one in `folder`, of the bytes that its shard has.

    Raises:
        FileNotFoundError: there is no such item.
        ShardError: the shard is damaged.
    """
    if path.exists():
        yield path
        return
    data = read_item(path)
    with temporary_file(folder, path.name) as temporary:
        temporary.write_bytes(data)
        yield temporary


def _members(shard: Path) -> dict[str, Member]:
    """The members of a shard by name; none if there is no such shard."""
    try:
        state = shard.stat()
    except FileNotFoundError:
        return {}
    return _index(shard.absolute(), state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(INDEXES_IN_MEMORY)
def _index(shard: Path, *state: int) -> dict[str, Member]:
    """The index of a shard in this state: time of change, size, number on disk."""
    try:
        with ZipFile(shard) as archive:
            return {info.filename: Member(info.header_offset, info.file_size, info.CRC) for info in archive.infolist()}
    except (BadZipFile, EOFError) as error:
        raise ShardError(f"{shard}: damaged: {error}; delete it and run its stage again") from None


def _name(number: str) -> str:
    return f"shard-{number}.zip"

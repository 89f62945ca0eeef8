"""Items named by content. Existing items are reused, items that left the input are removed, files are whole or absent.

A folder of items has a file `recipe`: a hash of the parameters and the code that make its items. Items of another
recipe are removed. So every item in the folder is what this run would make.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

FORMAT = 1  # version of the item files; another number makes all items again
RECIPE_FILE = "recipe"
_TEMPORARY = ".tmp-"


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def item_id(*parts: object) -> str:
    """A name of 20 hex digits: a hash of the JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, default=_as_json)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def recipe(code: Mapping[Any, str], **settings: object) -> str:
    """A hash that identifies how items are made.

    Args:
        code: `code_of` the function that makes one.
        settings: parameters, and recipes of the inputs.
    """
    return item_id(FORMAT, list(code.values()), settings)


def by_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an estimator for a recipe: the hash of the file that `weights` names in place of its path.

    A path without a file stays: the estimator says what is missing.
    """
    weights = options.get("weights")
    return {**options, "weights": content_hash(weights)} if weights and Path(weights).is_file() else dict(options)


def model_by_content(address: str) -> str:
    """A model for a recipe: a hub id as it is, a local folder by the names and bytes of its files."""
    folder = Path(address).expanduser()
    if not folder.is_dir():
        return address
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return item_id([(path.relative_to(folder).as_posix(), content_hash(path)) for path in files])


@contextmanager
def temporary_file(folder: Path, target: str = "") -> Iterator[Path]:
    """A new file to write and then rename, to `target` if it is given. It is removed if it was not renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{_TEMPORARY}{target}", dir=folder)
    os.close(handle)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, lasting: bool = True) -> None:
    """Write a whole file or none: under a temporary name in the same folder, then rename.

    Args:
        lasting: the file is whole after a power cut too. This costs milliseconds, so items that are made again do
            without it: after a power cut, such a file may be there but empty.
    """
    with temporary_file(path.parent, path.name) as temporary:
        temporary.write_bytes(data)
        if lasting:
            flush_to_disk(temporary)
        os.replace(temporary, path)


def flush_to_disk(path: Path) -> None:
    """Return when a file's bytes lie on the disk, so that a rename after that never shows an empty file."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


class ItemFolder:
    """A folder with one file `<id><suffix>` per item, all made by the same recipe."""

    def __init__(self, folder: Path, suffix: str):
        self.folder, self.suffix = folder, suffix

    def path(self, item: str) -> Path:
        return self.folder / f"{item}{self.suffix}"

    def has(self, item: str) -> bool:
        return self.path(item).exists()

    def files(self) -> set[str]:
        """Names of the items that are files of their own."""
        return {path.name.removesuffix(self.suffix) for path in self.folder.glob(f"*{self.suffix}")}

    def ids(self) -> set[str]:
        """Names of all items."""
        return self.files()

    def recipe(self) -> str | None:
        """The recipe of the items that are there; None if there never were any."""
        try:
            return (self.folder / RECIPE_FILE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def prepare(self, wanted: Iterable[str], recipe: str) -> list[str]:
        """Remove items that are not wanted, of another recipe, or left by a killed run. Return the missing items.

        An empty file is what a power cut leaves of an item. It is removed as well.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        wanted = list(dict.fromkeys(wanted))
        same = self.recipe() == recipe
        keep = set(wanted) if same else set()
        for item in self.files():
            if item not in keep or self.path(item).stat().st_size == 0:
                self.path(item).unlink()
        if not same:
            write_atomically(self.folder / RECIPE_FILE, f"{recipe}\n".encode())
        present = self.ids()
        return [item for item in wanted if item not in present]


def remove_leftovers(folder: Path, target: str = "") -> None:
    """Delete the temporary files of killed runs; with `target`, only those made for this file."""
    for path in folder.glob(f"{_TEMPORARY}{target}*"):
        path.unlink()


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot identify an item by {type(value).__name__}")


def weight_files(folder: Path) -> list[Path]:
    """Weights and configs of a network's folder, without curves and other files.

    Raises:
        FileNotFoundError: it has no weights.
    """
    files = [path for pattern in ("*.safetensors", "*config.json") for path in sorted(folder.glob(pattern))]
    if not any(path.suffix == ".safetensors" for path in files):
        raise FileNotFoundError(f"{folder}: no weights (.safetensors) in it")
    return files

"""Files of a source, wherever they lie: in a local folder, or in a storage that fsspec reads (`s3://bucket/folder`).

Credentials come from the environment, as the storage's own tools take them: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...
What is fetched is named by its content. A record in `fetched/` for each address and version says which content it was,
so that nothing is fetched twice, also after a killed run.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from models.errors import UserError
from stages.data.items import content_hash, flush_to_disk, item_id, temporary_file, write_atomically

DOWNLOADS = 16  # downloads of small files at once; more is faster on a slow network
RECORDS = "fetched"
_VERSIONS = ("ETag", "etag", "mtime", "modified", "last_modified", "created")


class SourceError(UserError):
    """A source that cannot be read at all; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in remote storage. `version` is its ETag or time of change: another content has another version."""

    storage: AbstractFileSystem
    address: str
    version: str

    @property
    def url(self) -> str:
        return self.storage.unstrip_protocol(self.address)

    @property
    def key(self) -> str:
        """The name of the file's record in `fetched/`."""
        return item_id(self.url, self.version)


File = Path | RemoteFile


def list_files(folder: str, parameter: str) -> dict[str, File]:
    """Every file below a folder by its name relative to it, in order of name; hidden ones, pipes and devices left out.

    Local links are followed, but never in circles.

    Args:
        folder: A path or a URL.
        parameter: That names the folder, for messages.

    Raises:
        SourceError: there is no such folder, or it cannot be read.
    """
    if (path := _local(folder, parameter)) is not None:
        if not path.is_dir():
            raise SourceError(f"{folder}: no such folder; create it or change {parameter}")
        root = os.path.join(path, "")
        return {_printable(os.fspath(file).removeprefix(root)): file for file in _walk(path)}
    with _explained(folder, parameter):
        storage, root = fsspec.url_to_fs(folder)
        found = storage.find(root, detail=True)
    if not found or root in found:
        raise SourceError(f"{folder}: no such folder; change {parameter}")
    files: dict[str, File] = {}
    for address, info in sorted(found.items()):
        name = address.removeprefix(root.rstrip("/") + "/")
        if name and not name.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
            files[name] = RemoteFile(storage, address, _version(info))
    return files


def find_file(file: str, parameter: str) -> File:
    """One file, by path or URL. Raises SourceError if it is not there; `parameter` names it, for messages."""
    if (path := _local(file, parameter)) is not None:
        if not path.is_file():
            raise SourceError(f"{file}: no such file; change {parameter}")
        return path
    with _explained(file, parameter):
        storage, address = fsspec.url_to_fs(file)
        if (info := storage.info(address))["type"] != "file":
            raise FileNotFoundError
        return RemoteFile(storage, address, _version(info))


def stays(file: Path) -> bool:
    """Whether a local file can stay where it is: tables hold only paths that are text."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True


def take_in(file: File, folder: Path) -> Path:
    """The copy of a file in `folder`, whose stem is its content's SHA-256; made or fetched unless it is there.

    Raises:
        OSError: there is no such file (any more), or no permission to read it.
        SourceError: its storage fails otherwise, such as by a broken connection, so that it is worth another try.
    """
    if isinstance(file, RemoteFile):
        return _fetched(file, folder)
    path = folder / _content_name(file, file.name)
    if not path.exists():
        with temporary_file(folder) as temporary:
            shutil.copyfile(file, temporary)
            flush_to_disk(temporary)
            os.replace(temporary, path)
    return path


class LocalCopies:
    """Local copies of a source's small files. `fetched`: the remote files that were copied into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.fetched: set[RemoteFile] = set()

    def of(self, files: Iterable[File], parameter: str) -> list[Path]:
        """A local path for each file; `parameter` names where they are from. Raises SourceError."""
        files = list(files)
        self.fetched |= {file for file in files if isinstance(file, RemoteFile)}
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            return list(pool.map(lambda file: self._copy(file, parameter), files))

    def _copy(self, file: File, parameter: str) -> Path:
        if isinstance(file, Path):
            return file
        with _explained(file.url, parameter):
            return take_in(file, self.folder)


def keep_only(folder: Path, files: set[str], remote: set[RemoteFile]) -> None:
    """Remove all of `folder` but `files`, and the copies and records of `remote`."""
    if not folder.is_dir():
        return
    records, keys = folder / RECORDS, {file.key for file in remote}
    for record in records.glob("*"):
        if record.name in keys:
            files = files | {record.read_text(encoding="utf-8").strip()}
        else:
            record.unlink()
    for path in folder.iterdir():
        if path != records and path.name not in files:
            path.unlink()


def _fetched(file: RemoteFile, folder: Path) -> Path:
    record = folder / RECORDS / file.key
    if record.exists() and (path := folder / record.read_text(encoding="utf-8").strip()).is_file():
        return path
    with temporary_file(folder) as temporary:
        try:
            file.storage.get_file(file.address, str(temporary))
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each storage has errors of its own
            raise SourceError(
                f"{file.url}: cannot be fetched: {_text(error)}; try again, nothing is fetched twice"
            ) from None
        flush_to_disk(temporary)
        path = folder / _content_name(temporary, file.address)
        os.replace(temporary, path)
    write_atomically(record, f"{path.name}\n".encode())
    return path


def _content_name(content: Path, name: str) -> str:
    suffix = re.sub(r"[^.a-z0-9]", "", PurePosixPath(name).suffix.lower())[:8]
    return f"{content_hash(content)}{suffix}"


def _local(location: str, parameter: str) -> Path | None:
    """The path of a local file or folder, None if it lies elsewhere."""
    if "://" not in location:
        return Path(location)
    with _explained(location, parameter):
        storage, path = fsspec.url_to_fs(location)
    return Path(path) if isinstance(storage, LocalFileSystem) else None


@contextmanager
def _explained(location: str, parameter: str) -> Iterator[None]:
    """Whatever a storage raises, as SourceErrors that say what to do."""
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        extra = " (pip install -e '.[s3]')" if location.startswith("s3:") else ""
        raise SourceError(f"{location}: {_text(error)}{extra}") from None
    except FileNotFoundError:
        raise SourceError(f"{location}: no such file or folder; change {parameter}") from None
    except PermissionError as error:
        raise SourceError(f"{location}: no permission ({_text(error)}); check the credentials or {parameter}") from None
    except Exception as error:  # each storage has errors of its own
        raise SourceError(
            f"{location}: cannot be read: {_text(error)}; check {parameter}, the network and the credentials"
        ) from None


def _version(info: dict[str, Any]) -> str:
    return " ".join(str(info[field]) for field in ("size", *_VERSIONS) if field in info)


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _walk(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    if (real := folder.resolve()) in seen:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, seen | {real})
        elif entry.is_file() or entry.is_symlink():
            yield folder / entry.name


def _printable(path: str) -> str:
    """A path as text that any file can hold: bytes of the name that are no UTF-8 are escaped."""
    return os.fsencode(path).replace(os.fsencode(os.sep), b"/").decode("utf-8", "backslashreplace")

"""Disks that are full, over a quota or read-only: such a fault ends as one line with the place and the remedy."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the disk is read-only",
}
REASONS_BY_TEXT = {  # libraries that raise errors of their own
    "No space left on device": REASONS[errno.ENOSPC],
    "database or disk is full": REASONS[errno.ENOSPC],
    "Disk quota exceeded": REASONS[errno.EDQUOT],
    "File too large": REASONS[errno.EFBIG],
    "Read-only file system": REASONS[errno.EROFS],
    "No usable temporary directory": "no temporary file can be written; let TMPDIR name a folder with space",
    "inline_container.cc": "a file could not be written whole",  # PyTorch's writer hides the reason
}
PLACES = ("data", "checkpoints", "artifacts", "metrics", "reports", ".cache", ".mlflow_waiting", "mlruns", ".dvc", ".")
FULL = 2**20  # bytes; a place with less space counts as full


def disk_fault(error: BaseException) -> str | None:
    """One line for an error that a disk has caused, None for any other error."""
    chain = list(_chain(error))
    reason = next((found for each in chain if (found := _reason(each))), None)
    if reason is None:
        return None
    names = (each.filename for each in chain if isinstance(each, OSError) and each.filename is not None)
    place = next(names, None) or _full_place()
    return f"{os.fsdecode(place)}: {reason}; make room or let it be written to, then run the same command again"


def write_whole(path: Path, data: bytes) -> None:
    """Write a whole file, or leave what is there.

    Raises:
        OSError: the disk fails; its `filename` is the path.
    """
    part = path.with_name(f".tmp-{path.name}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from or during."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in REASONS:
        return REASONS[error.errno]
    text = str(error)
    return next((reason for part, reason in REASONS_BY_TEXT.items() if part in text), None)


def _full_place() -> str:
    """The first folder that is written to and has no space left; if there is none, the working folder."""
    for place in (*PLACES, os.environ.get("TMPDIR", "/tmp")):
        try:
            free = os.statvfs(place)
        except OSError:
            continue
        if free.f_bavail * free.f_frsize < FULL:
            return os.path.abspath(place)
    return os.getcwd()

"""Local files that were read before: one that has not changed since is taken without reading it.

What a file is known by is what Git's index keeps: size, times of change and number on disk. It says nothing about the
content on another machine, so it lies in `.cache/` and is no output of the stage. Without it, every file is read again.
"""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from stages.data.items import write_atomically

CACHE = Path(".cache/collect")
TOO_NEW = 2_000_000_000  # nanoseconds; a file changed so shortly before it was read may change again at the same time


def read_known(name: str) -> dict[str, str]:
    """SHA-256 of the content by state of the file; empty if the record is missing or damaged."""
    try:
        found = json.loads((CACHE / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_known(name: str, contents: Iterable[tuple[str, str]]) -> None:
    """Remember the content (its SHA-256) of each file (its state)."""
    data = json.dumps(dict(sorted(contents)), indent=0)
    write_atomically(CACHE / f"{name}.json", data.encode())


def state_of(file: Path) -> str | None:
    """The state of a local file; None if there is no such file, or if it changed a moment ago."""
    try:
        found = file.stat()
    except OSError:
        return None
    if max(found.st_mtime_ns, found.st_ctime_ns) > time.time_ns() - TOO_NEW:
        return None
    facts = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    return " ".join([*map(str, facts), os.path.abspath(file)])

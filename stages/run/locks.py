"""No stage runs twice at once in a folder, or one run would delete what the other is writing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCKS = Path(".locks")


@contextmanager
def only_run(stage: str) -> Iterator[None]:
    """Hold the stage's lock; if another process has it, exit with one line and code 1. It ends with its process."""
    LOCKS.mkdir(exist_ok=True)
    try:
        lock = FileLock(LOCKS / f"{stage}.lock").acquire(blocking=False)
    except Timeout:
        sys.exit(f"{stage}: it runs already in this folder; wait until that run has ended, or stop it")
    with lock:
        yield

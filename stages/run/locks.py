"""The start of a stage: its inputs are there, and it runs once at a time in a folder.

Otherwise one run would delete what the other is writing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.run.inputs import check_inputs

LOCKS = Path(".locks")


@contextmanager
def only_run(stage: str) -> Iterator[None]:
    """Hold the stage's lock until the process ends. If another process holds it, exit with one line and code 1.

    Raises:
        MissingInput: what another stage should have made is not there.
    """
    check_inputs(stage)
    LOCKS.mkdir(exist_ok=True)
    try:
        lock = FileLock(LOCKS / f"{stage}.lock").acquire(blocking=False)
    except Timeout:
        sys.exit(f"{stage}: it runs already in this folder; wait until that run has ended, or stop it")
    with lock:
        yield

"""How long stages took: metrics/timing.json (seconds) and metrics/throughput.json (items and seconds).

Neither is an output of DVC: times differ from run to run.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from stages.data.items import write_atomically

TIMING_FILE = Path("metrics/timing.json")
THROUGHPUT_FILE = Path("metrics/throughput.json")


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Write the duration of the context in seconds to metrics/timing.json, unless it fails."""
    start = time.monotonic()
    yield
    _note(TIMING_FILE, name, round(time.monotonic() - start, 2))


def note_throughput(name: str, items: int, seconds: float) -> None:
    """Write the number of items of a stage and the seconds that they took to metrics/throughput.json."""
    _note(THROUGHPUT_FILE, name, {"items": items, "seconds": round(seconds, 2)})


def _note(path: Path, name: str, value: Any) -> None:
    """Set one entry of a JSON file that several stages may write at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        text = json.dumps(known | {name: value}, indent=2, sort_keys=True) + "\n"
        write_atomically(path, text.encode(), lasting=False)

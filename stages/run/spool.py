"""What a run has to tell MLflow, kept on disk until MLflow has taken it.

A folder below `.mlflow_waiting/` for each run: `journal.jsonl`, an entry a line; `files/`, copies of its artifacts;
`sent.json`, how much of the journal was sent, and to which run. The folder is locked while its process lives. It is
deleted once all is sent.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

WAITING = Path(".mlflow_waiting")
JOURNAL, SENT, LOCK = "journal.jsonl", "sent.json", "lock"


@dataclass
class Sent:
    """offset: bytes of the journal that were taken. run_id, parent_id: MLflow's runs, empty before the first entry.

    ended: whether the run's last entry was taken.
    """

    offset: int = 0
    run_id: str = ""
    parent_id: str = ""
    ended: bool = False


class Spool:
    """The folder of one run, held by this process."""

    def __init__(self, folder: Path, lock: FileLock):
        self.folder, self._lock = folder, lock
        sent = folder / SENT
        self.sent = Sent(**json.loads(sent.read_text(encoding="utf-8"))) if sent.is_file() else Sent()

    @classmethod
    def new(cls, stage: str) -> "Spool":
        """A new folder."""
        folder = WAITING / f"{stage}-{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
        return cls(folder, lock)

    @classmethod
    def left_over(cls) -> Iterator["Spool"]:
        """The folders of processes that have ended, the oldest first. Each is let go of after its turn."""
        folders = [path for path in WAITING.glob("*") if path.is_dir()]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime):
            lock = FileLock(folder / LOCK)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                yield cls(folder, lock)
            finally:
                lock.release()

    def add(self, kind: str, **content: Any) -> None:
        """Write an entry. A disk error is raised as OSError."""
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"kind": kind, **content}) + "\n")

    def keep_file(self, path: Path) -> str:
        """Copy a file or a folder, because it may change before it is sent; return the copy's path in this folder."""
        kept = Path("files") / uuid.uuid4().hex[:8] / path.resolve().name
        (self.folder / kept).parent.mkdir(parents=True)
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, self.folder / kept)
        return kept.as_posix()

    def waiting(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The entries that were not sent, each with the offset behind it.

        Entries that are half written are left out: the last one while it is being written, and one on a full disk.
        """
        journal = self.folder / JOURNAL
        if not journal.is_file():
            return
        with journal.open("rb") as file:
            file.seek(self.sent.offset)
            while line := file.readline():
                if not line.endswith(b"\n"):
                    return
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                yield entry, file.tell()

    def note(self, **facts: Any) -> None:
        """Note what was sent, see `Sent`."""
        self.sent = Sent(**(asdict(self.sent) | facts))
        temporary = self.folder / f"{SENT}.tmp"
        temporary.write_text(json.dumps(asdict(self.sent)), encoding="utf-8")
        os.replace(temporary, self.folder / SENT)

    def release(self) -> None:
        """Let others send what is left."""
        self._lock.release()

    def delete(self) -> None:
        """Remove the folder."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

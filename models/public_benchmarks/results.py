"""One file per finished case, `cases/<name>.json`, so that an interrupted benchmark goes on where it was.

A file is used again only if its key is the same: model, settings, and the bytes of the case's own files.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.public_benchmarks.case import PublicCase
from models.public_benchmarks.error import EndPointError

RESULT_FORMAT = 1  # raise it when a figure of the same video changes
NO_STEP = "after the first frame, no visible point lies in the part of the picture that the video shows"


def case_key(case: PublicCase, settings: Mapping[str, Any]) -> str:
    """What decides the figures of a case, as a hash."""
    digest = hashlib.sha256(json.dumps([RESULT_FORMAT, case.name, case.prompt, settings], sort_keys=True).encode())
    for path in case.files:
        digest.update(path.name.encode() + hash_of_file(path).encode())
    return digest.hexdigest()


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finished_result(folder: Path, case: PublicCase, key: str) -> dict[str, Any] | None:
    """The entry of a case that was finished under this key, else None."""
    try:
        entry = json.loads(_place(folder, case).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("key") == key else None


def keep_result(folder: Path, case: PublicCase, key: str, error: EndPointError | str) -> dict[str, Any]:
    """Write the entry of a case, whole or not at all, and return it. A text for an error says why it has none."""
    entry: dict[str, Any] = {"name": case.name, "key": key}
    if isinstance(error, str):
        entry["skipped"] = error
    else:
        rounded = asdict(error)
        entry |= {name: round(value, 4) if isinstance(value, float) else value for name, value in rounded.items()}
    path = _place(folder, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
    return entry


def _place(folder: Path, case: PublicCase) -> Path:
    return folder / "cases" / f"{case.name}.json"

"""What was measured of each raw video: a JSON file with an entry for each of its clips, or for why there is none."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.curation.outcome import Facts, Step
from stages.data.items import write_atomically
from stages.data.shards import ShardedItems


@dataclass(frozen=True)
class MeasuredClip:
    """One entry of a video's file: what was measured, and, if there is no clip, the step that gave it up and why."""

    clip_id: str
    facts: Facts
    dropped: tuple[Step, str] | None = None


def write_measures(path: Path, entries: Iterable[MeasuredClip]) -> None:
    rows = [
        {"clip_id": entry.clip_id, "facts": vars(entry.facts)}
        | ({"step": entry.dropped[0], "reason": entry.dropped[1]} if entry.dropped else {})
        for entry in entries
    ]
    write_atomically(path, (json.dumps(rows) + "\n").encode(), lasting=False)


def read_measures(measured: ShardedItems, videos: Iterable[str]) -> dict[str, list[MeasuredClip]]:
    """The entries of each of these videos. One whose file is missing or cut off is left out."""
    found = {}
    for video, data in measured.read(videos):
        try:
            found[video] = [_entry(**row) for row in json.loads(data.decode())]
        except (ValueError, TypeError):
            continue
    return found


def _entry(clip_id: str, facts: dict[str, object], step: Step | None = None, reason: str = "") -> MeasuredClip:
    return MeasuredClip(clip_id, Facts(**facts), (step, reason) if step else None)  # type: ignore[arg-type]

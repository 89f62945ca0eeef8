"""Clips and videos of a split compared with each other. What was found is kept until code or inputs change."""

from pathlib import Path
from typing import Any

from models.curation.duplicates import Candidate, near_duplicates
from models.curation.shared_footage import Shared, find_shared
from stages.data.measures import MeasuredClip
from stages.params import Split
from stages.run.kept import kept_result

KEPT = Path(".cache/clips")


def find_near_duplicates(split: Split, candidates: list[Candidate], max_bits: float) -> dict[str, str]:
    """As `near_duplicates`, kept."""
    inputs = [[max_bits], *([each.name, each.signature, each.rank] for each in candidates)]
    return kept_result(KEPT / split / "near_duplicates.json", near_duplicates, inputs, candidates, max_bits)


def shared_footage(split: Split, listed: list[Any], found: dict[str, list[MeasuredClip]]) -> list[Shared]:
    """Pairs of videos of different contents, named by their contents, that share footage.

    The fingerprints are taken out of the entries: they are large, and nothing else needs them.
    """
    prints: dict[str, str] = {}
    for row in listed:
        for entry in found.get(row.item, [])[:1]:
            prints.setdefault(row.content, entry.facts.footage or "")
            entry.facts.footage = None
    prints = {content: footage for content, footage in sorted(prints.items()) if footage}
    return [Shared(*pair) for pair in kept_result(KEPT / split / "shared.json", find_shared, prints.items(), prints)]

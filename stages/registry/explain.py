"""The decision on a registered version, replayed from the values that were logged with it."""

import json
from typing import Any

from models.errors import UserError
from models.evaluation.challenge import PairedValues, judge_challenge
from stages.params import Params
from stages.registry.versions import Versions


class DecisionLost(UserError):
    """The files that were logged with a version cannot be read."""


def explain_version(params: Params, number: str) -> str:
    """What was decided on a version and why, with its numbers. The comparison is computed again from its values.

    Raises:
        NoSuchVersion: there is no such version.
        DecisionLost: the files of its run cannot be read.
    """
    versions = Versions(params)
    version = versions.get(number)
    try:
        decision = versions.decision(version)
    except (OSError, versions.error) as error:
        raise DecisionLost(f"version {number}: the files of run {version.run_id} cannot be read: {error}") from None
    lines = [
        f"{versions.name} version {number}: {'got' if decision['alias_moves'] else 'did not get'} the alias "
        f"{decision['alias']}",
        f"  why: {decision['why']}",
        f"  run {version.run_id}, weights {decision['weights']}",
    ]
    evidence = versions.evidence(version)
    if evidence is None:
        return "\n".join([*lines, "  there was no comparison with a champion"])
    again = replay(evidence)
    same = json.dumps(again, sort_keys=True) == json.dumps(decision["challenge"], sort_keys=True)
    lines.append(f"  computed again from the values of each video: {'the same' if same else 'ANOTHER RESULT'}")
    for name, entry in again["measures"].items():
        mark = "worse" if entry["worse"] else "better" if entry["better"] else ""
        for tracker, each in entry["trackers"].items():
            low, high = each["ci95"]
            lines.append(
                f"  {name:22} {tracker:14} n {entry['n']:4}  {each['champion']:8.3f} -> {each['challenger']:8.3f}  "
                f"difference {each['difference']:+8.3f} [{low:+.3f}, {high:+.3f}] {mark}".rstrip()
            )
    return "\n".join([*lines, f"  pictures: artifacts `pictures` of run {version.run_id} in MLflow"])


def replay(evidence: dict[str, Any]) -> dict[str, Any]:
    """`judge_challenge` on logged values."""
    champion, challenger = (
        {name: PairedValues(**values) for name, values in evidence[model].items()}
        for model in ("champion", "challenger")
    )
    return judge_challenge(champion, challenger, evidence["minimum_gain"], evidence["seed"])

"""Results of a preference study: shares of two methods, strengths of more methods (Sec 3, App C.2).

Strengths are those of Bradley and Terry (1952): method i beats j with probability s_i / (s_i + s_j). They sum to 1. A
weak prior keeps them finite. With two methods, the strengths are the shares of the votes, apart from the prior.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

Question = Literal["overall", "quality", "motion"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
PRIOR = 0.05  # votes added each way to every pair; without them, a method that never lost has no finite strength
RESAMPLES = 2000
ITERATIONS = 200


class Vote(NamedTuple):
    """One participant's answer to one question about one pair of videos."""

    participant: int
    question: Question
    winner: str
    loser: str


def preferences(votes: Sequence[Vote], seed: int = 0) -> dict[str, Any]:
    """Figures by question and method: share of its comparisons won, Bradley-Terry strength, each with its interval.

    Intervals are 95 % intervals of a cluster bootstrap: participants are drawn with replacement, with all their votes.
    With one participant there is no interval.

    Raises:
        ValueError: there is no vote.
    """
    if not votes:
        raise ValueError("votes: none yet")
    methods = sorted({vote.winner for vote in votes} | {vote.loser for vote in votes})
    return {
        "participants": len({vote.participant for vote in votes}),
        "interval": "95 %, cluster bootstrap over participants",
        "questions": {
            question: _figures(chosen, methods, seed)
            for question in QUESTIONS
            if (chosen := [vote for vote in votes if vote.question == question])
        },
    }


def strengths(wins: np.ndarray) -> np.ndarray:
    """Bradley-Terry strengths (..., M), sum 1, of wins (..., M, M): how often row beat column.

    Maximum likelihood by the MM algorithm (Hunter, 2004), with `PRIOR` votes each way added to every pair.
    """
    count = wins.shape[-1]
    wins = wins + PRIOR * (1 - np.eye(count))
    meetings = wins + np.swapaxes(wins, -1, -2)
    strength = np.full(wins.shape[:-1], 1 / count)
    for _ in range(ITERATIONS):
        strength = wins.sum(-1) / (meetings / (strength[..., :, None] + strength[..., None, :])).sum(-1)
        strength /= strength.sum(-1, keepdims=True)
    return strength


def preferences_as_text(figures: Mapping[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [f"{figures['participants']} participants; {figures['interval']}"]
    for question, by_method in figures["questions"].items():
        lines.append(f"{question}:")
        for method, row in by_method.items():
            lines.append(
                f"  {method:<24} {100 * row['share']:5.1f} % of {row['n']:4d}{_between(row['share_ci95'])}"
                f"   strength {row['strength']:.3f}{_between(row['strength_ci95'])}"
            )
    return "\n".join(lines)


def _figures(votes: Sequence[Vote], methods: list[str], seed: int) -> dict[str, Any]:
    """Figures by method of one question's votes."""
    participants = sorted({vote.participant for vote in votes})
    wins = np.zeros((len(participants), len(methods), len(methods)))
    for vote in votes:
        wins[participants.index(vote.participant), methods.index(vote.winner), methods.index(vote.loser)] += 1
    drawn = np.random.default_rng(seed).integers(len(participants), size=(RESAMPLES, len(participants)))
    total, resampled = wins.sum(0), wins[drawn].sum(1)
    alone = len(participants) == 1
    share, strength = _share(total), strengths(total)
    share_ci, strength_ci = (
        np.nanquantile(part, [0.025, 0.975], axis=0) for part in (_share(resampled), strengths(resampled))
    )
    return {
        method: {
            "share": round(float(share[i]), 4),
            "share_ci95": None if alone else [round(float(value), 4) for value in share_ci[:, i]],
            "strength": round(float(strength[i]), 4),
            "strength_ci95": None if alone else [round(float(value), 4) for value in strength_ci[:, i]],
            "n": int(total[i].sum() + total[:, i].sum()),
        }
        for i, method in enumerate(methods)
    }


def _share(wins: np.ndarray) -> np.ndarray:
    """Share (..., M) of its comparisons that each method won; nan where it has none."""
    won, lost = wins.sum(-1), wins.sum(-2)
    with np.errstate(invalid="ignore"):
        return won / (won + lost)


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else " [{:.3f}, {:.3f}]".format(*interval)

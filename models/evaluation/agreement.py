"""Whether two trackers rank the methods alike."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from models.metrics import interval


def ranking_agreement(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], groups: Sequence[Hashable], seed: int
) -> dict[str, Any]:
    """Compare the order that two trackers give the methods.

    A tracker tells two methods apart if the 95 % interval of their paired difference excludes zero. The interval comes
    from a cluster bootstrap over `groups`. The trackers agree unless both tell a pair apart and order it differently.

    Args:
        first, second: method -> its errors (n,), of the same n videos.
        groups: one for each video.

    Returns:
        kendall_tau: of the mean errors. pairs: number of pairs. told_apart: pairs that both trackers tell apart.
        same_order: those of them that both order alike. opposed: the rest, as [better by the first tracker, worse by
        the first tracker]. agree: whether no pair is opposed.
    """
    told_apart, opposed = 0, []
    pairs = list(combinations(first, 2))
    for a, b in pairs:
        signs = [_order(errors[a] - errors[b], groups, seed) for errors in (first, second)]
        told_apart += all(signs)
        if all(signs) and signs[0] != signs[1]:
            opposed.append([a, b] if signs[0] < 0 else [b, a])
    means = [[errors[name].mean() for name in first] for errors in (first, second)]
    tau = float(kendalltau(*means).statistic)
    return {
        "kendall_tau": None if np.isnan(tau) else round(tau, 4),
        "pairs": len(pairs),
        "told_apart": told_apart,
        "same_order": told_apart - len(opposed),
        "opposed": opposed,
        "agree": not opposed,
    }


def _order(difference: np.ndarray, groups: Sequence[Hashable], seed: int) -> int:
    """Sign of a mean difference; 0 if its interval contains zero."""
    low, high = interval(difference, groups, seed)
    return int(low > 0) - int(high < 0)

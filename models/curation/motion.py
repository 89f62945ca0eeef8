"""Motion estimation and filtering (Sec 2.2, step 3)."""

import math

import numpy as np


def motion_score(flow: np.ndarray) -> float:
    """Mean over the frame pairs of the Frobenius norm of the flow, in pixels.

    Args:
        flow: (T - 1, 2, H, W) pixels per step.
    """
    return float(np.sqrt(np.einsum("tchw,tchw->t", flow, flow, dtype=np.float64)).mean())


def least_motion(scores: dict[str, float], share: float) -> set[str]:
    """Names of the `share` (rounded down) of all clips with the lowest scores; equals are taken in order of name."""
    ranked = sorted(scores, key=lambda name: (scores[name], name))
    return set(ranked[: math.floor(share * len(ranked) + 1e-9)])

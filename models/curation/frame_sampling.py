"""Frame sampling (Sec 2.2, step 3): a run of frames at a random interval, at a random place of the scene."""

import numpy as np

from models.curation.outcome import Unusable


def draw_frames(
    scene: tuple[int, int], count: int, interval: tuple[int, int], rng: np.random.Generator
) -> tuple[range, int]:
    """Draw an interval among those that the scene's length allows, then the first frame.

    Args:
        scene: First frame and end (exclusive).
        count: Frames to take.
        interval: Lowest and highest distance between neighbours.

    Returns:
        The frame indices, and the interval.

    Raises:
        Unusable: the scene is too short for the lowest interval.
    """
    start, end = scene
    needed = (count - 1) * interval[0] + 1
    if end - start < needed:
        raise Unusable(
            "length", f"too short: the longest scene has {max(0, end - start)} usable frames, a clip needs {needed}"
        )
    highest = min(interval[1], (end - start - 1) // (count - 1))
    step = int(rng.integers(interval[0], highest + 1))
    first = int(rng.integers(start, end - (count - 1) * step))
    return range(first, first + (count - 1) * step + 1, step), step

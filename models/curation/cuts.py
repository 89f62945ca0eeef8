"""Cuts (Sec 2.2, step 2): keep the longest scene between two cuts."""


def longest_scene(cuts: list[int], frames: int) -> tuple[int, int]:
    """First frame and end (exclusive) of the longest scene; the earliest of equals.

    Args:
        cuts: Index of the first frame of each new scene, rising, inside 1..frames - 1.
        frames: Length of the video.
    """
    edges = [0, *cuts, frames]
    scenes = list(zip(edges[:-1], edges[1:], strict=True))
    return max(scenes, key=lambda scene: scene[1] - scene[0])

"""Cuts (Sec 2.2, step 2): keep the longest scene between two cuts, without the frames right beside them."""


def longest_scene(cuts: list[int], frames: int) -> tuple[int, int]:
    """First frame and end (exclusive) of the longest scene; the earliest of equals.

    Args:
        cuts: Index of the first frame of each new scene, rising, inside 1..frames - 1.
        frames: Length of the video.
    """
    return max(all_scenes(cuts, frames), key=lambda scene: scene[1] - scene[0])


def all_scenes(cuts: list[int], frames: int) -> list[tuple[int, int]]:
    """First frame and end (exclusive) of every scene, in order; arguments as for `longest_scene`."""
    edges = [0, *cuts, frames]
    return list(zip(edges[:-1], edges[1:], strict=True))


def inner_scene(scene: tuple[int, int], frames: int, margin: int) -> tuple[int, int]:
    """The scene less `margin` frames at each cut, which may be mixed with the next scene; not at the video's ends."""
    start, end = scene
    return start + margin * (start > 0), end - margin * (end < frames)

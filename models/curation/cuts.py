"""Cuts (Sec 2.2, step 2): keep the longest scene between two cuts, without the frames right beside them.

A transition is the index of its first frame and of the first frame that is the new scene's alone; equal for a hard cut.
Frames of a dissolve or fade belong to no scene.
"""

from collections.abc import Iterable


def longest_scene(transitions: Iterable[tuple[int, int]], frames: int) -> tuple[int, int]:
    """First frame and end (exclusive) of the longest scene; the earliest of equals.

    Args:
        transitions: In any order, inside 0..frames.
        frames: Length of the video.
    """
    return max(all_scenes(transitions, frames), key=lambda scene: scene[1] - scene[0])


def all_scenes(transitions: Iterable[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    """First frame and end (exclusive) of every scene, in order, at least one; arguments as for `longest_scene`."""
    scenes, start = [], 0
    for first, end in sorted(transitions):
        if first > start:
            scenes.append((start, first))
        start = max(start, end)
    if start < frames or not scenes:
        scenes.append((start, frames))
    return scenes


def inner_scene(scene: tuple[int, int], frames: int, margin: int) -> tuple[int, int]:
    """The scene less `margin` frames at each cut, which may be mixed with the next scene; not at the video's ends."""
    start, end = scene
    return start + margin * (start > 0), end - margin * (end < frames)

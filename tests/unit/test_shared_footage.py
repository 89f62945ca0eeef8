"""Footage inside another video is found by its frames."""

import cv2
import numpy as np

from models.curation.shared_footage import LEAST_FRAMES, Shared, deciding_contents, find_shared, fingerprint
from models.scenes import render, sample_scenes


def films(count, frames=24, seed=7000):
    """Grey procedural scenes (count, T, H, W) uint8."""
    scenes = sample_scenes(["mixed"] * count, frames, list(range(seed, seed + count)), 3)
    videos = (render(scenes, 144, 96) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return [np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]) for video in videos]


def changed(frames):
    """As another encoder might leave them: smaller, darker, with noise."""
    noise = np.random.default_rng(0).normal(0, 3, (len(frames), 48, 72))
    small = np.stack([cv2.resize(frame, (72, 48), interpolation=cv2.INTER_AREA) for frame in frames])
    return np.clip(0.8 * small + 10 + noise, 0, 255).astype(np.uint8)


def print_of(*scenes):
    first, parts = 0, []
    for scene in scenes:
        parts.append((range(first, first + len(scene)), scene))
        first += len(scene)
    return fingerprint(parts)


def test_a_scene_of_a_film_is_found_where_it_lies_and_other_videos_are_not():
    videos = films(8)
    prints = {f"{index:02d}": print_of(video) for index, video in enumerate(videos)}
    assert find_shared(prints) == []
    film = print_of(videos[3], changed(videos[5][4:20]))
    pairs = find_shared({**{name: text for name, text in prints.items() if name != "03"}, "film": film})
    assert [(pair.video, pair.other) for pair in pairs] == [("05", "film")]
    assert pairs[0].share >= 0.5 and abs(pairs[0].frame - (pairs[0].other_frame - 24 + 4)) <= 2


def test_a_short_part_is_found_in_a_long_scene():
    (video,) = films(1, frames=60)
    (pair,) = find_shared({"long": print_of(video), "part": print_of(changed(video[30:44]))})
    assert (pair.video, pair.other) == ("part", "long") and abs(pair.frame + 30 - pair.other_frame) <= 2


def test_flat_pictures_are_like_no_other():
    black = np.zeros((20, 32, 48), np.uint8)
    assert print_of(black) == "" and print_of(films(1)[0][: LEAST_FRAMES - 1]) == ""
    assert find_shared({"a": "", "b": ""}) == find_shared({}) == []


def test_a_group_has_one_deciding_content_whatever_the_order():
    pairs = [Shared(a, b, 1.0, 0, 0) for a, b in (("a", "b"), ("c", "d"), ("b", "c"))]
    decides = deciding_contents("abcde", pairs)
    assert len({decides[name] for name in "abcd"}) == 1 and decides["e"] == "e"
    assert deciding_contents("edcba", pairs[::-1]) == decides


def test_groups_are_decided_without_a_leaning():
    pairs = [Shared(f"{i:064x}", f"{i + 1:064x}", 1.0, 0, 0) for i in range(0, 400, 2)]
    decides = deciding_contents([name for pair in pairs for name in pair[:2]], pairs)
    first = sum(decides[pair.video] == pair.video for pair in pairs)
    assert 60 <= first <= 140

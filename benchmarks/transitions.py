"""How well cuts are found: `python -m benchmarks.transitions --videos FOLDER`.

Films of real parts with hard cuts, dissolves of 8 and 24 frames, fades through black, and flashes, at known places; and
the videos themselves, which should be of one shot each. A cut counts as found if the detector names one, and only one,
inside the transition or within 2 frames of it. A flash is no cut. Each detector sees the same films; CPU seconds are
given for each 1,000 frames.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from models.estimators import load_estimator
from models.video.read import read_frames

SIZE = 192, 108  # pixels; about the size at which curation looks for cuts
WITHIN = 2  # frames
PART = 40, 90  # frames [least, most] of a part
KINDS = ("hard", "dissolve_8", "dissolve_24", "fade", "flash")


class Transition(NamedTuple):
    """kind: one of KINDS. first, end: its first frame, and the first frame that is the new scene's alone."""

    kind: str
    first: int
    end: int


def make_film(parts: list[np.ndarray], kinds: list[str]) -> tuple[np.ndarray, list[Transition]]:
    """Join parts (T, H, W, 3) uint8 by transitions; a flash stands in the middle of a part and joins nothing."""
    film, places = parts[0].astype(np.float32), []
    for kind, coming in zip(kinds, (part.astype(np.float32) for part in parts[1:]), strict=True):
        length = {"hard": 0, "dissolve_8": 8, "dissolve_24": 24, "fade": 12, "flash": 0}[kind]
        mix = ((np.arange(length) + 1) / (length + 1))[:, None, None, None].astype(np.float32)
        if kind == "fade":
            out, back = film[-length:] * (1 - mix), coming[:length] * mix
            places.append(Transition(kind, len(film) - length, len(film) + length))
            film = np.concatenate([film[:-length], out, np.zeros_like(film[:2]), back, coming[length:]])
        elif length:
            mixed = film[-length:] * (1 - mix) + coming[:length] * mix
            places.append(Transition(kind, len(film) - length, len(film)))
            film = np.concatenate([film[:-length], mixed, coming[length:]])
        else:
            if kind == "flash":
                middle = len(coming) // 2
                coming[middle : middle + 2] = 0.2 * coming[middle : middle + 2] + 0.8 * 255
                places.append(Transition("flash", len(film) + middle, len(film) + middle + 2))
            places.append(Transition("hard", len(film), len(film)))
            film = np.concatenate([film, coming])
    return np.rint(film).astype(np.uint8), sorted(places, key=lambda place: place.first)


def count_hits(found: list[int], places: list[Transition]) -> Counter[str]:
    """`<kind>_found`, `<kind>_all` for each kind of transition, and `false`; a cut at a flash is a false one."""
    left, counts = list(found), Counter[str]()
    for place in places:
        if place.kind == "flash":
            continue
        counts[f"{place.kind}_all"] += 1
        hits = [cut for cut in left if place.first - WITHIN <= cut <= place.end + WITHIN]
        if hits:
            counts[f"{place.kind}_found"] += 1
            left.remove(hits[0])
    counts["false"] += len(left)
    return counts


def score(counts: Counter[str]) -> dict[str, float]:
    """Precision, recall and F1 over all kinds."""
    found = sum(number for name, number in counts.items() if name.endswith("_found"))
    there = sum(number for name, number in counts.items() if name.endswith("_all"))
    precision, recall = found / max(1, found + counts["false"]), found / max(1, there)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}


def films(videos: list[np.ndarray], count: int, seed: int) -> list[tuple[np.ndarray, list[Transition]]]:
    """Films of five parts each, no two neighbours of the same video; kinds in turns, so that all are as frequent."""
    rng, made, kind = np.random.default_rng(seed), [], 0
    for _ in range(count):
        order = [int(rng.integers(len(videos)))]
        while len(order) < 5:
            order.append(int(rng.choice([i for i in range(len(videos)) if i != order[-1]])))
        parts = []
        for index in order:
            length = min(len(videos[index]), int(rng.integers(PART[0], PART[1] + 1)))
            first = int(rng.integers(0, len(videos[index]) - length + 1))
            parts.append(videos[index][first : first + length])
        kinds = [KINDS[(kind + step) % len(KINDS)] for step, _ in enumerate(pairwise(order))]
        kind += len(kinds)
        made.append(make_film(parts, kinds))
    return made


def measure(
    name: str,
    detect: Callable[[list[np.ndarray]], tuple[list[int], int]],
    made: list[tuple[np.ndarray, list[Transition]]],
    single: list[np.ndarray],
) -> dict[str, object]:
    """The row of one detector."""
    counts, inside, frames = Counter[str](), 0, 0
    started = time.process_time()
    for film, places in made:
        counts.update(count_hits(detect(list(film))[0], places))
        frames += len(film)
    seconds = time.process_time() - started
    for video in single:
        inside += len(detect(list(video))[0])
    row = {"detector": name, "films": len(made)} | score(counts)
    kinds = {kind: f"{counts[f'{kind}_found']} of {counts[f'{kind}_all']}" for kind in KINDS if kind != "flash"}
    time_each = round(1000 * seconds / max(1, frames), 2)
    return row | kinds | {"false": counts["false"], "false_inside_shots": inside, "s_per_1000_frames": time_each}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transitions", description=__doc__)
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="folders of videos of one shot each")
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detectors", nargs="+", default=["adaptive", "content", "transnet"])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    paths = [path for folder in options.videos for path in sorted(folder.glob("*.mp4"))]
    single = [np.stack(list(read_frames(path, SIZE))) for path in paths]
    made = films(single, options.films, options.seed)
    for name in options.detectors:
        print(json.dumps(measure(name, load_estimator("cuts", name), made, single)), flush=True)


if __name__ == "__main__":
    main()

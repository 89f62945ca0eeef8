"""Estimators, chosen by name in params.yaml: one file each, behind one small interface per kind.

    detect_cuts = load_estimator("cuts", "adaptive")

What a kind does is said by its protocol below. A module is imported when it is asked for, not before.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from models.errors import UserError
from models.torchvision_ops import prepare_torchvision

prepare_torchvision()

Kind = Literal["cuts", "flow", "text", "tracks", "captions"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MODULES: dict[Kind, dict[str, str]] = {
    "cuts": {"adaptive": "cuts_adaptive", "content": "cuts_content", "transnet": "cuts_transnet"},
    "flow": {"raft": "flow_raft", "dis": "flow_dis"},
    "text": {"rapidocr": "text_rapidocr"},
    "tracks": {
        "cotracker": "tracks_cotracker",
        "lucas_kanade": "tracks_lucas_kanade",
        "lucas_kanade_lenient": "tracks_lucas_kanade",
        "template": "tracks_template",
    },
    "captions": {"blip2": "captions_blip2", "qwen_vl": "captions_qwen_vl"},
}


NEURAL = {"raft", "cotracker", "blip2", "qwen_vl"}  # estimators that want a GPU
_OF_GENERATED = {"lucas_kanade": "lucas_kanade_lenient"}


class EstimatorUnavailable(UserError):
    """Weights or code of an estimator cannot be had here; the message says what is missing and what to do."""


class CutDetector(Protocol):
    def __call__(self, frames: Iterable[np.ndarray]) -> tuple[list[int], int]:
        """Watch frames (H, W, 3) uint8 RGB; return the index of each new scene's first frame, and the frame count."""


@runtime_checkable
class TransitionDetector(CutDetector, Protocol):
    """A cut detector that knows how long a transition is."""

    def transitions(self, frames: Iterable[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
        """Watch frames as `CutDetector` does; return the transitions, and the frame count.

        A transition is the index of its first frame and of the new scene's first frame; equal for a hard cut.
        """


def find_transitions(detect_cuts: CutDetector, frames: Iterable[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
    """As `TransitionDetector.transitions`; a detector that names cuts only gives hard cuts."""
    if isinstance(detect_cuts, TransitionDetector):
        return detect_cuts.transitions(frames)
    cuts, count = detect_cuts(frames)
    return [(cut, cut) for cut in cuts], count


class FlowEstimator(Protocol):
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Optical flow (T - 1, 2, H, W) float32 between adjacent frames (T, H, W, 3) uint8, in pixels: dx, dy."""


class TextFinder(Protocol):
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Share (T,) float32 of each picture of (T, H, W, 3) uint8 that text covers."""


class PointTracker(Protocol):
    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Follow points (N, 2) of frame 0, in pixels, through frames (T, H, W, 3) uint8.

        Returns tracks (T, N, 2) float32 in pixels and visibility (T, N) bool; an invisible point's place is a guess.
        """


class Captioner(Protocol):
    def __call__(self, images: np.ndarray) -> list[str]:
        """One caption for each image of (N, H, W, 3) uint8."""


@cache
def load_estimator(kind: Kind, name: str, **options: Any) -> Any:
    """The estimator `name` of a kind, with its weights; loaded once per process.

    Raises:
        ValueError: unknown name.
        EstimatorUnavailable: its weights or code are missing.
    """
    return estimator_module(kind, name).load(name, **options)


def estimator_module(kind: Kind, name: str) -> ModuleType:
    """The module that implements an estimator. Raises ValueError for an unknown name."""
    return import_module(estimator_module_name(kind, name))


def estimator_module_name(kind: Kind, name: str) -> str:
    """The name of the module that implements an estimator. Raises ValueError for an unknown name."""
    if name not in _MODULES[kind]:
        raise ValueError(f"{kind}: unknown estimator {name!r}; choose one of {', '.join(_MODULES[kind])}")
    return f"{__name__}.{_MODULES[kind][name]}"


def second_tracker(first: str) -> str:
    """The name of the point tracker that measures beside the first one, by another method."""
    return "lucas_kanade_lenient" if first == "template" else "template"


def load_second_tracker(first: str) -> PointTracker:
    """The point tracker that measures beside the first one."""
    return load_estimator("tracks", second_tracker(first))


def load_tracker_of_generated(name: str, **options: Any) -> PointTracker:
    """The point tracker `name` for generated videos, whose objects blur and fade: the lenient one where it has one."""
    return load_estimator("tracks", _OF_GENERATED.get(name, name), **options)

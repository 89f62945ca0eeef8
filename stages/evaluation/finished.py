"""A finished job of the evaluation as the bytes of one file, so that a stopped evaluation goes on where it was.

The file is an .npz without pickles: the measurements as JSON, whose numbers come back exactly, and arrays.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from models.evaluation.experiment import Case
from models.evaluation.measure import Look, Measured, Motion
from models.metrics import Following, MotionError
from stages.data.tables import ContractError

ERRORS = ("error", "background_error")  # of the fields of a Motion; the others are of type Following


@dataclass(frozen=True)
class KeptVideo:
    """What is kept of one video.

    measured: its measurements.
    video: (T, H, W, 3) uint8, if the report shows it.
    features: rows (n, D) of the video for each Frechet distance, by the name of the distance.
    """

    measured: Measured
    video: np.ndarray | None = None
    features: dict[str, np.ndarray] = field(default_factory=dict)


def to_bytes(videos: Sequence[KeptVideo]) -> bytes:
    """The file of a job. The same videos give the same bytes."""
    numbers = json.dumps([_numbers(each.measured) for each in videos]).encode()
    arrays: dict[str, Any] = {"measured": np.frombuffer(numbers, np.uint8)}
    for index, each in enumerate(videos):
        if each.video is not None:
            arrays[f"{index}/video"] = each.video
        arrays |= {f"{index}/{name}": rows for name, rows in each.features.items()}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def read_finished(path: Path, cases: Sequence[Case]) -> list[KeptVideo]:
    """What a job left: its videos in their order; `cases` are those of the videos.

    A job leaves one video for each case, or the same number of videos for every case, case by case.

    Raises:
        ContractError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = dict(data)
    except (ValueError, EOFError, BadZipFile) as error:
        raise ContractError(f"{path}: damaged ({error}); delete it and run the stage evaluate again") from error
    numbers = json.loads(arrays.pop("measured").tobytes())
    videos = []
    for index, each in enumerate(numbers):
        named = {name.partition("/")[2]: rows for name, rows in arrays.items() if name.startswith(f"{index}/")}
        measured = _measured(cases[index * len(cases) // len(numbers)], each)
        videos.append(KeptVideo(measured, named.pop("video", None), named))
    return videos


def _numbers(measured: Measured) -> dict[str, Any]:
    motions = {
        tracker: {name: None if value is None else list(value) for name, value in vars(motion).items()}
        for tracker, motion in measured.motions.items()
    }
    look = {name: np.asarray(value).tolist() for name, value in asdict(measured.look).items()}
    return {"motions": motions, "look": look}


def _measured(case: Case, numbers: dict[str, Any]) -> Measured:
    motions = {tracker: _motion(motion) for tracker, motion in numbers["motions"].items()}
    look = numbers["look"]
    return Measured(case, motions, Look(look["psnr"], look["ssim"], np.array(look["colour"]), np.array(look["detail"])))


def _motion(numbers: dict[str, Any]) -> Motion:
    """A motion from its JSON."""
    read: dict[str, Any] = {
        name: None if value is None else (MotionError if name in ERRORS else Following)(*value)
        for name, value in numbers.items()
    }
    return Motion(**read)

"""Features of real clips by FID's and FVD's networks. Each clip is one item of .cache/evaluate/<distance>.

They depend on the clips and on the network alone: another training leaves them as they are.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from models.evaluation.features import Features
from stages.data.curated import CuratedClip
from stages.data.footage import read_clip
from stages.data.items import ItemFolder, recipe, write_atomically
from stages.data.tables import ContractError
from stages.evaluation.distances import OfficialNetwork
from stages.params import Params
from stages.run.code import code_of
from stages.run.compute import map_items


@dataclass(frozen=True)
class RealClipJob:
    """One real clip whose first `frames` frames a network gets, and the file to write."""

    network: OfficialNetwork
    clip: CuratedClip
    frames: int
    file: Path


def features_of_clips(network: OfficialNetwork, clips: list[CuratedClip], params: Params) -> np.ndarray:
    """Rows (n, D) of the clips in their order. Clips whose rows are kept are not read again."""
    folder = ItemFolder(Path(".cache/evaluate") / network.distance, ".npz")
    frames = params.video.frames
    made_by = recipe(code_of(write_features), sha256=network.sha256, frames=frames)
    missing = set(folder.prepare([clip.clip_id for clip in clips], made_by))
    jobs = [RealClipJob(network, clip, frames, folder.path(clip.clip_id)) for clip in clips if clip.clip_id in missing]
    title = f"evaluate {network.distance}"
    for _ in map_items(write_features, jobs, params.compute, title, _crashed, one_per_accelerator=True):
        pass
    return np.concatenate([_read(folder.path(clip.clip_id)) for clip in clips])


def write_features(job: RealClipJob) -> None:
    """Take the features of a clip with this process's network and write its file."""
    file = io.BytesIO()
    np.savez_compressed(file, rows=_loaded(job.network)([read_clip(job.clip.video)[: job.frames]]))
    write_atomically(job.file, file.getvalue())


@lru_cache(1)
def _loaded(network: OfficialNetwork) -> Features:
    return network.load()


def _read(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as data:
        return data["rows"]


def _crashed(job: RealClipJob) -> None:
    raise ContractError(
        f"{job.clip.video}: the process that took its features for {job.network.distance} ended, perhaps for lack of "
        "memory; lower compute.workers"
    )

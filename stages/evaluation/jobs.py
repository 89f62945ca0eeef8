"""The jobs of the evaluation. Each is done by one process and kept as one file in .cache/evaluate/videos.

A job samples and measures one batch of cases by one method, or measures one test clip as a floor. `params.compute` says
where jobs run. The name of a file is a hash of the job, and the folder has a recipe with weights, parameters and code.
So a stopped evaluation goes on where it was, and nothing old is used after a change.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.estimators import PointTracker
from models.evaluation.experiment import START, Case, Method, sample_batch
from models.evaluation.features import Features
from models.evaluation.measure import measure
from models.pixels import to_uint8
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from stages.data.footage import read_clip
from stages.data.items import ItemFolder, by_content, content_hash, item_id, recipe, weight_files, write_atomically
from stages.data.paths import CAMERA_LORA, FOUNDATION, MOTION_CONTROLNET, OBJECT_LORA
from stages.data.tables import ContractError
from stages.evaluation.distances import OfficialNetwork, encoded, features_of
from stages.evaluation.finished import KeptVideo, to_bytes
from stages.evaluation.pipeline import load_pipeline, load_trackers, settings_of, start_folder, start_pipeline
from stages.params import ComputeParams, Params, Precision
from stages.run.code import code_of
from stages.run.compute import map_items
from stages.run.memory import keep_freed_memory

VIDEOS = ItemFolder(Path(".cache/evaluate/videos"), ".npz")


@dataclass(frozen=True)
class Setup:
    """What all jobs share. A process loads the networks of one setup once; equal recipes mean equal networks.

    start: folder of the motion ControlNet that training started from.
    tracker, options: name of the curation's tracker, and what its `load` is given.
    official: the networks of official distances.
    """

    recipe: str
    settings: Settings = field(compare=False)
    precision: Precision = field(compare=False)
    seed: int = field(compare=False)
    start: str | None = field(compare=False)
    tracker: str = field(compare=False)
    options: dict[str, Any] = field(compare=False)
    official: tuple[OfficialNetwork, ...] = field(compare=False)


@dataclass(frozen=True)
class SamplingJob:
    """One batch of cases to sample by one method.

    shown: for each case, whether the report shows its video.
    compared: whether the videos are compared with real ones, by Frechet distances.
    """

    setup: Setup
    method: Method
    cases: tuple[Case, ...]
    shown: tuple[bool, ...]
    compared: bool

    @property
    def name(self) -> str:
        return item_id(asdict(self.method), [_hash_of(case) for case in self.cases], self.shown, self.compared)


@dataclass(frozen=True)
class FloorJob:
    """One test clip to measure against its own tracks, as it is and through the codec."""

    setup: Setup
    cases: tuple[Case]
    clip: Path

    @property
    def name(self) -> str:
        return item_id("floor", _hash_of(self.cases[0]))


class Loaded(NamedTuple):
    """What a process loads once for all jobs."""

    pipe: ImageConductorPipeline
    start: ImageConductorPipeline | None
    trackers: dict[str, PointTracker]
    official: dict[str, Features]


def setup_of(params: Params, official: Iterable[OfficialNetwork]) -> Setup:
    """The setup of the evaluation's jobs, with the weights that are on disk now."""
    official, start, tracks = tuple(official), start_folder(params), params.tracks
    folders = [MOTION_CONTROLNET, CAMERA_LORA, OBJECT_LORA, *([Path(start)] if start else [])]
    made_by = recipe(
        code_of(do_job, params),
        foundation=content_hash(FOUNDATION / "weights.json"),
        weights=[content_hash(file) for folder in folders for file in weight_files(folder)],
        video=params.video,
        sampler=params.sampler,
        tracker=[tracks.estimator, by_content(tracks.options())],
        evaluate=params.evaluate.model_dump(include={"seed", "precision"}),
        official=[network.sha256 for network in official],
    )
    settings = params.evaluate
    how = settings_of(params), settings.precision, settings.seed, start, tracks.estimator, tracks.options()
    return Setup(made_by, *how, official)


def do_jobs(setup: Setup, jobs: Iterable[SamplingJob | FloorJob], compute: ComputeParams) -> None:
    """Do those jobs whose files are not there. Files of other jobs are removed."""
    by_name = {job.name: job for job in jobs}
    missing = VIDEOS.prepare(by_name, setup.recipe)
    left = [by_name[name] for name in missing]
    for _ in map_items(do_job, left, compute, "evaluate", _crashed, one_per_accelerator=True):
        pass


def do_job(job: SamplingJob | FloorJob) -> None:
    """Do a job with this process's networks and write its file."""
    loaded = _loaded(job.setup)
    made = videos_of(job, loaded) if isinstance(job, SamplingJob) else floors_of(job, loaded)
    write_atomically(VIDEOS.path(job.name), to_bytes(made))


def videos_of(job: SamplingJob, loaded: Loaded) -> list[KeptVideo]:
    """The measured videos of a batch."""
    pipe = loaded.start if job.method == START else loaded.pipe
    assert pipe is not None, "planned only where there is a start"
    camera = job.method.mode == "camera"
    videos = sample_batch(pipe, job.cases, job.method, job.setup.seed)
    return [
        KeptVideo(
            measure(case, video, loaded.trackers, camera),
            video if shown else None,
            features_of(video, loaded.pipe.foundation, loaded.official) if job.compared else {},
        )
        for case, video, shown in zip(job.cases, videos, job.shown, strict=True)
    ]


def floors_of(job: FloorJob, loaded: Loaded) -> list[KeptVideo]:
    """The clip itself and the clip through the codec, measured."""
    foundation = loaded.pipe.foundation
    frames = read_clip(job.clip)[: job.setup.settings.frames]
    decoded = to_uint8(foundation.decode(encoded(foundation, frames).transpose(0, 1)[None]))[0]
    return [KeptVideo(measure(job.cases[0], video, loaded.trackers, False)) for video in (frames, decoded)]


@lru_cache(1)
def _loaded(setup: Setup) -> Loaded:
    keep_freed_memory()
    pipe = load_pipeline(setup.settings, setup.precision)
    return Loaded(
        pipe,
        start_pipeline(pipe, setup.start) if setup.start else None,
        load_trackers(setup.tracker, setup.options),
        {network.distance: network.load() for network in setup.official},
    )


def _crashed(job: SamplingJob | FloorJob) -> None:
    raise ContractError(
        f"the process that worked on the pictures {', '.join(case.picture for case in job.cases)} ended, perhaps for "
        "lack of memory; lower evaluate.batch_size or compute.workers"
    )


def _hash_of(case: Case) -> str:
    digest = hashlib.sha256(f"{case.picture} {case.trajectory} {case.number}".encode())
    latents, text = case.first_latents.numpy(), case.prompt_embeds.numpy()
    for array in (case.first_frame, latents, text, case.wanted, case.camera, case.background, case.body):
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

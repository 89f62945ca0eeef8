"""CamMC, ObjMC, leakage, fidelity and distances on test pictures (Sec 3, App C.2): `python -m stages.evaluate`.

Writes metrics/evaluation.json and reports/evaluation/index.html with GIFs and contact sheets. What was measured of each
video is kept in .cache/evaluate: an evaluation that was stopped goes on where it was.
"""

import json
from functools import partial
from typing import Any, NamedTuple

from models.estimators import second_tracker
from models.evaluation.experiment import BOTH, PLAIN, START, Case, Method, batches, guided
from models.evaluation.measure import Measured
from models.evaluation.pictures import Shown, draw_report
from models.evaluation.report import write_evaluation_report
from models.evaluation.tables import (
    FLOORS,
    TrackerPair,
    agreement,
    both_table,
    error_table,
    fidelity,
    guidance_table,
    leakage,
)
from stages.data.items import write_atomically
from stages.data.paths import CAMERA_LORA, EVALUATION, EVALUATION_REPORT, MOTION_CONTROLNET, OBJECT_LORA
from stages.evaluation.cases import (
    both_cases,
    camera_cases,
    floor_cases,
    many_stroke_cases,
    object_cases,
    object_scenes,
    scene_cases,
)
from stages.evaluation.distances import Distances, distance_networks
from stages.evaluation.finished import read_finished
from stages.evaluation.jobs import VIDEOS, FloorJob, SamplingJob, Setup, do_jobs, setup_of
from stages.evaluation.pipeline import start_folder
from stages.evaluation.real import features_of_clips
from stages.params import Params, Split
from stages.run.command import run_stage
from stages.run.mlflow_runs import StageRun

REAL_SPLIT: dict[str, Split] = {"cam_mc": "camera", "obj_mc": "mixed"}
COMPARED_WITH_REAL = {("scenes", "camera_lora"), ("obj_mc", "object_lora")}  # both on pictures of the mixed split


class MethodRow(NamedTuple):
    """A set of cases by one method, and the jobs that make and measure its videos."""

    key: str
    method: str
    jobs: list[SamplingJob]


def run(params: Params, tracker: StageRun) -> dict[str, Any]:
    official = distance_networks(params)
    setup = setup_of(params, official.values())
    cases = cases_by_set(params)
    shown = Shown({key: of_set for key, (of_set, _) in cases.items()})
    rows = video_jobs(cases, shown, setup, params.evaluate.batch_size)
    floors = {
        key: [FloorJob(setup, (case,), clip) for case, clip in floor_cases(split, params)]
        for key, split in REAL_SPLIT.items()
    }
    jobs = [job for row in rows for job in row.jobs] + [job for of_set in floors.values() for job in of_set]
    do_jobs(setup, jobs, params.compute)
    distances = Distances(official, params)
    results = read_videos(rows, shown, distances)
    for key, of_set in floors.items():
        results[key] |= read_floors(of_set)
    figures = figures_of(results, params)
    figures["distances"] = distances.entries(partial(features_of_clips, params=params))
    figures |= {"profile": params.profile, "seed": params.evaluate.seed}
    write_atomically(EVALUATION, (json.dumps(figures, indent=2) + "\n").encode())
    sections = draw_report(EVALUATION_REPORT, results, shown, params.tracks.estimator)
    write_evaluation_report(EVALUATION_REPORT / "index.html", figures, sections)
    tracker.metrics({f"{key}.{name}": row["px"] for key in REAL_SPLIT for name, row in figures[key].items()})
    tracker.metrics({f"leakage.{name}": row["share"] for name, row in figures["leakage"].items()})
    for part in (MOTION_CONTROLNET, CAMERA_LORA, OBJECT_LORA):
        tracker.weights(part)
    tracker.artifact(EVALUATION)
    tracker.artifact(EVALUATION_REPORT, "report")
    print(f"evaluate: {EVALUATION}, {EVALUATION_REPORT / 'index.html'}")
    return figures


def cases_by_set(params: Params) -> dict[str, tuple[list[Case], list[Method]]]:
    """The sets of cases by name, each with the methods that are compared on it."""
    methods = {method.name: method for method in PLAIN}
    guidances = guided(params.evaluate.trajectory_guidance_scales)
    start = [START] if start_folder(params) else []
    scenes = object_scenes(params)
    return {
        "cam_mc": (camera_cases(params), [*PLAIN, *start]),
        "obj_mc": (object_cases(scenes, params), [*PLAIN, *guidances, *start]),
        "scenes": (scene_cases(scenes, params), [methods["camera_lora"]]),
        "both": (both_cases(scenes, params), [BOTH]),
        "many_strokes": (many_stroke_cases(scenes, params), guidances),
    }


def video_jobs(
    cases: dict[str, tuple[list[Case], list[Method]]], shown: Shown, setup: Setup, batch_size: int
) -> list[MethodRow]:
    """The jobs that sample and measure every case with every method of its set."""
    return [
        MethodRow(
            key,
            method.name,
            [
                SamplingJob(
                    setup,
                    method,
                    tuple(batch),
                    tuple(shown.shows(key, method.name, case) for case in batch),
                    (key, method.name) in COMPARED_WITH_REAL,
                )
                for batch in batches(of_set, batch_size)
            ],
        )
        for key, (of_set, compared) in cases.items()
        for method in compared
    ]


def read_videos(rows: list[MethodRow], shown: Shown, distances: Distances) -> dict[str, dict[str, list[Measured]]]:
    """Measured videos by set and method. Videos of the report go to `shown`, features to `distances`."""
    results: dict[str, dict[str, list[Measured]]] = {}
    for row in rows:
        measured = results.setdefault(row.key, {})[row.method] = []
        for job in row.jobs:
            for case, made in zip(job.cases, read_finished(VIDEOS.path(job.name), job.cases), strict=True):
                measured.append(made.measured)
                if made.video is not None:
                    shown.keep(row.key, row.method, case, made.video)
                if made.features:
                    distances.add(case.picture, made.features)
    return results


def read_floors(jobs: list[FloorJob]) -> dict[str, list[Measured]]:
    """Test clips measured against their own tracks: the clips themselves, and the clips through the codec."""
    made = [read_finished(VIDEOS.path(job.name), job.cases) for job in jobs]
    return {name: [videos[index].measured for videos in made] for index, name in enumerate(FLOORS)}


def figures_of(results: dict[str, dict[str, list[Measured]]], params: Params) -> dict[str, Any]:
    """The figures that measured videos give."""
    pair = TrackerPair(params.tracks.estimator, second_tracker(params.tracks.estimator))
    width, seed, scales = params.video.width, params.evaluate.seed, params.evaluate.trajectory_guidance_scales
    figures: dict[str, Any] = {key: error_table(results[key], pair, width, seed) for key in REAL_SPLIT}
    figures["trackers"] = pair._asdict() | {key: agreement(results[key], pair, seed) for key in REAL_SPLIT}
    figures["leakage"] = leakage(results, pair, width, seed)
    figures["both"] = both_table(results, pair, width, seed)
    figures["guidance"] = guidance_table(results["many_strokes"], pair, scales, seed)
    figures["fidelity"] = fidelity(results, seed)
    return figures


if __name__ == "__main__":
    run_stage("stages.evaluate")

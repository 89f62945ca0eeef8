"""CamMC, ObjMC, leakage, fidelity and distances on test pictures (Sec 3, App C.2): `python -m stages.evaluate`.

Writes metrics/evaluation.json and reports/evaluation/index.html with GIFs and contact sheets.
"""

import json
from typing import Any

from models.estimators import SECOND_TRACKER, PointTracker, load_estimator, load_tracker_of_generated
from models.evaluation.experiment import PLAIN, START, Case, Method, generate_cases, guided
from models.evaluation.measure import Measured, measure
from models.evaluation.pictures import Shown, draw_report
from models.evaluation.report import write_evaluation_report
from models.evaluation.tables import TrackerPair, agreement, error_table, fidelity, guidance_table, leakage
from models.lora.sets import load_lora
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from models.pixels import to_uint8
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from stages.data.items import write_atomically
from stages.data.paths import (
    CAMERA_LORA,
    EVALUATION,
    EVALUATION_REPORT,
    FOUNDATION,
    MOTION_CONTROLNET,
    OBJECT_LORA,
)
from stages.data.tables import ContractError
from stages.evaluation.cases import (
    camera_cases,
    many_stroke_cases,
    object_cases,
    object_scenes,
    real_clips,
    scene_cases,
)
from stages.evaluation.distances import Distances, encoded, official_features
from stages.params import Params, Split
from stages.run.command import run_stage
from stages.run.device import best_device, frozen_dtype
from stages.run.memory import keep_freed_memory
from stages.run.mlflow_runs import StageRun
from stages.train.start import read_start

REAL_SPLIT: dict[str, Split] = {"cam_mc": "camera", "obj_mc": "mixed"}
COMPARED_WITH_REAL = {("scenes", "camera_lora"), ("obj_mc", "object_lora")}  # both on pictures of the mixed split


def run(params: Params, tracker: StageRun) -> dict[str, Any]:
    keep_freed_memory()
    official = official_features(params)
    pipe = load_pipeline(params)
    trackers = load_trackers(params)
    distances = Distances(pipe.foundation, official, params)
    results, shown = sample(pipe, trackers, distances, params)
    for key, split in REAL_SPLIT.items():
        results[key] |= floors(pipe.foundation, split, trackers, params)
    pair = TrackerPair(params.tracks.estimator, SECOND_TRACKER)
    width, settings = params.video.width, params.evaluate
    figures: dict[str, Any] = {key: error_table(results[key], pair, width, settings.seed) for key in REAL_SPLIT}
    ranks = {key: agreement(results[key], pair, settings.seed) for key in REAL_SPLIT}
    figures["trackers"] = pair._asdict() | ranks
    figures["leakage"] = leakage(results, pair, width, settings.seed)
    scales = settings.trajectory_guidance_scales
    figures["guidance"] = guidance_table(results["many_strokes"], pair, scales, settings.seed)
    figures["fidelity"] = fidelity(results, settings.seed)
    figures["distances"] = distances.entries()
    figures |= {"profile": params.profile, "seed": params.evaluate.seed}
    write_atomically(EVALUATION, (json.dumps(figures, indent=2) + "\n").encode())
    write_evaluation_report(
        EVALUATION_REPORT / "index.html", figures, draw_report(EVALUATION_REPORT, results, shown, pair.first)
    )
    tracker.metrics({f"{key}.{name}": row["px"] for key in REAL_SPLIT for name, row in figures[key].items()})
    tracker.metrics({f"leakage.{name}": row["share"] for name, row in figures["leakage"].items()})
    for part in (MOTION_CONTROLNET, CAMERA_LORA, OBJECT_LORA):
        tracker.weights(part)
    tracker.artifact(EVALUATION)
    tracker.artifact(EVALUATION_REPORT, "report")
    print(f"evaluate: {EVALUATION}, {EVALUATION_REPORT / 'index.html'}")
    return figures


def load_pipeline(params: Params) -> ImageConductorPipeline:
    """The pipeline with all trained parts, on a GPU if there is one."""
    network = MotionControlNet.from_pretrained(MOTION_CONTROLNET)
    load_lora(network, "camera", CAMERA_LORA)
    load_lora(network, "object", OBJECT_LORA)
    device = best_device()
    dtype = frozen_dtype(params.evaluate.precision, device)
    network.requires_grad_(False).eval().to(dtype)
    video = params.video.model_dump(include={"width", "height", "frames", "fps"})
    pipe = ImageConductorPipeline.assemble(
        Foundation.load(FOUNDATION, dtype), network, Settings(**video, **params.sampler.model_dump())
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def start_pipeline(pipe: ImageConductorPipeline, params: Params) -> ImageConductorPipeline | None:
    """The pipeline with the motion ControlNet that training started from; None if there was no such start."""
    settings = params.motion_controlnet
    if settings.source is not None or settings.start is None:
        return None
    network = read_start(settings.start).requires_grad_(False).eval().to(pipe.unet.dtype)
    start = ImageConductorPipeline.assemble(pipe.foundation, network, pipe.settings)
    start.set_progress_bar_config(disable=True)
    return start.to(pipe.device)


def load_trackers(params: Params) -> dict[str, PointTracker]:
    """The curation's tracker in its lenient form for generated videos, and a second, independent tracker."""
    first = load_tracker_of_generated(params.tracks.estimator, **params.tracks.options())
    return {params.tracks.estimator: first, SECOND_TRACKER: load_estimator("tracks", SECOND_TRACKER)}


def sample(
    pipe: ImageConductorPipeline, trackers: dict[str, PointTracker], distances: Distances, params: Params
) -> tuple[dict[str, dict[str, list[Measured]]], Shown]:
    """Generate and measure every case with every method. Videos of the pictures in the report are kept."""
    settings = params.evaluate
    methods = {method.name: method for method in PLAIN}
    guidances = guided(settings.trajectory_guidance_scales)
    scenes = object_scenes(params)
    plan: dict[str, tuple[list[Case], list[Method]]] = {
        "cam_mc": (camera_cases(params), list(PLAIN)),
        "obj_mc": (object_cases(scenes, params), [*PLAIN, *guidances]),
        "scenes": (scene_cases(scenes, params), [methods["camera_lora"]]),
        "many_strokes": (many_stroke_cases(scenes, params), guidances),
    }
    untrained = start_pipeline(pipe, params)
    if untrained is not None:
        for key in ("cam_mc", "obj_mc"):
            plan[key][1].append(START)
    results: dict[str, dict[str, list[Measured]]] = {}
    shown = Shown({key: cases for key, (cases, _) in plan.items()})
    for key, (cases, compared) in plan.items():
        results[key] = {}
        for method in compared:
            rows = results[key][method.name] = []
            sampler = untrained if untrained is not None and method is START else pipe
            for case, video in generate_cases(sampler, cases, method, settings.seed, settings.batch_size):
                rows.append(measure(case, video, trackers, camera=method.mode == "camera"))
                shown.keep(key, method.name, case, video)
                if (key, method.name) in COMPARED_WITH_REAL:
                    distances.add(case.picture, video)
    return results, shown


def floors(
    foundation: Foundation, split: Split, trackers: dict[str, PointTracker], params: Params
) -> dict[str, list[Measured]]:
    """Measure test clips against their own tracks: the clips themselves, and the clips through the codec."""
    measured: dict[str, list[Measured]] = {"real": [], "codec": []}
    for case, frames in real_clips(split, params):
        decoded = to_uint8(foundation.decode(encoded(foundation, frames).transpose(0, 1)[None]))[0]
        for name, video in (("real", frames), ("codec", decoded)):
            measured[name].append(measure(case, video, trackers, camera=False))
    if not measured["real"]:
        raise ContractError(f"data/sparse_flows/{split}: no test clip whose strokes stay visible; add videos")
    return measured


if __name__ == "__main__":
    run_stage("stages.evaluate")

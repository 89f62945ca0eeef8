"""CamMC, ObjMC, leakage, fidelity and distances on held-out pictures (Sec 3, App C.2): `python -m stages.evaluate`.

Writes metrics/evaluation.json and reports/evaluation/index.html with GIFs and contact sheets.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.estimators import PointTracker, load_estimator, load_tracker_of_generated
from models.evaluation.agreement import ranking_agreement
from models.evaluation.experiment import PLAIN, START, Case, Method, generate, guided, to_uint8
from models.evaluation.features import (
    LEAST_FRAMES,
    Features,
    I3DFeatures,
    InceptionFeatures,
    WeightsUnusable,
    codec_features,
)
from models.evaluation.figures import drift_entry, error_entry, following_entry, guidance_entry, look_entry
from models.evaluation.measure import Measured, Motion, measure
from models.evaluation.pictures import Shown, draw
from models.evaluation.report import write_report
from models.foundation import Foundation, FoundationError
from models.lora import load_lora
from models.metrics import Following, VideoError, frechet_distance, still_error
from models.networks import MotionControlNet
from models.pipeline import ImageConductorPipeline, Settings
from models.video import read_video
from stages import camera_lora, motion_controlnet, object_lora
from stages.cases import camera_cases, many_stroke_cases, object_cases, object_scenes, real_clips, scene_cases
from stages.contracts import ContractError, CuratedClip, curated_clips
from stages.items import write_atomically
from stages.latents import latents_folder, read_latents
from stages.locks import only_run
from stages.memory import keep_freed_memory
from stages.params import SPLITS, Params, ParamsError, Split, load_params
from stages.tracking import StageRun, stage_run
from stages.training import FOUNDATION

METRICS = Path("metrics/evaluation.json")
REPORT = Path("reports/evaluation")
SECOND_TRACKER = "template"
REAL_SPLIT: dict[str, Split] = {"cam_mc": "camera", "obj_mc": "mixed"}
COMPARED_WITH_REAL = {("cam_mc", "camera_lora"), ("obj_mc", "object_lora")}
MOST_REAL_CLIPS = 5000  # as many as the paper's distances
Results = dict[str, dict[str, list[Measured]]]


def run(params: Params, tracker: StageRun) -> dict[str, Any]:
    keep_freed_memory()
    official = official_features(params)
    pipe = load_pipeline(params)
    trackers = load_trackers(params)
    distances = Distances(pipe.foundation, official, params)
    results, shown = sample(pipe, trackers, distances, params)
    for key, split in REAL_SPLIT.items():
        results[key] |= floors(pipe.foundation, split, trackers, params)
    figures: dict[str, Any] = {key: error_table(results[key], params) for key in REAL_SPLIT}
    first, second = trackers
    ranks = {key: agreement(results[key], params) for key in REAL_SPLIT}
    figures["trackers"] = {"first": first, "second": second, **ranks}
    figures["leakage"] = leakage(results, (first, second), params)
    swapped = ((first, second), (second, first))
    figures["guidance"] = {name: guidance(results["many_strokes"], name, other, params) for name, other in swapped}
    figures["fidelity"] = fidelity(results, params)
    figures["distances"] = distances.entries()
    figures |= {"profile": params.profile, "seed": params.evaluate.seed}
    write_atomically(METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    write_report(REPORT / "index.html", figures, draw(REPORT, results, shown, first))
    tracker.metrics({f"{key}.{name}": row["px"] for key in REAL_SPLIT for name, row in figures[key].items()})
    tracker.metrics({f"leakage.{name}": row["share"] for name, row in figures["leakage"].items()})
    return figures


def load_pipeline(params: Params) -> ImageConductorPipeline:
    """The trained parts on the foundation, on a GPU where there is one."""
    network = MotionControlNet.from_pretrained(motion_controlnet.OUTPUT)
    load_lora(network, "camera", camera_lora.OUTPUT)
    load_lora(network, "object", object_lora.OUTPUT)
    network.requires_grad_(False).eval()
    video = params.video.model_dump(include={"width", "height", "frames", "fps"})
    pipe = ImageConductorPipeline.assemble(
        Foundation.load(FOUNDATION), network, Settings(**video, **params.sampler.model_dump())
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def start_pipeline(pipe: ImageConductorPipeline, params: Params) -> ImageConductorPipeline | None:
    """The sampler with the motion ControlNet that training began with, if it had one: untrained on the clips."""
    settings = params.motion_controlnet
    if settings.source is not None or settings.start is None:
        return None
    network = motion_controlnet.read_start(settings.start).requires_grad_(False).eval()
    start = ImageConductorPipeline.assemble(pipe.foundation, network, pipe.settings)
    start.set_progress_bar_config(disable=True)
    return start.to(pipe.device)


def load_trackers(params: Params) -> dict[str, PointTracker]:
    """The first is the curation's own, lenient as generated videos need it, the second independent of it."""
    first = load_tracker_of_generated(params.tracks.estimator, **params.tracks.options())
    return {params.tracks.estimator: first, SECOND_TRACKER: load_estimator("tracks", SECOND_TRACKER)}


def official_features(params: Params) -> dict[str, Features]:
    """FID's and FVD's networks, by the distance's name, if params ask for them.

    Raises:
        ParamsError: no weights are named, or videos are too short for FVD.
        WeightsUnusable: a file of weights is missing or holds something else.
    """
    settings = params.evaluate
    if settings.features == "codec":
        return {}
    if settings.inception_weights is None or settings.i3d_weights is None:
        raise ParamsError(
            "params.yaml: evaluate.features: 'inception, i3d' needs the official weights: name their files in "
            "evaluate.inception_weights and evaluate.i3d_weights, or set evaluate.features to codec"
        )
    if params.video.frames < LEAST_FRAMES:
        raise ParamsError(
            f"params.yaml: evaluate.features: FVD needs video.frames of {LEAST_FRAMES} or more "
            f"(found {params.video.frames}); set evaluate.features to codec"
        )
    return {"fid": InceptionFeatures(settings.inception_weights), "fvd": I3DFeatures(settings.i3d_weights)}


def sample(
    pipe: ImageConductorPipeline, trackers: dict[str, PointTracker], distances: "Distances", params: Params
) -> tuple[Results, Shown]:
    """Make and measure every case under every method; keep the videos of the pictures that the report shows."""
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
    results: Results = {}
    shown = Shown({key: cases for key, (cases, _) in plan.items()})
    for key, (cases, compared) in plan.items():
        results[key] = {}
        for method in compared:
            rows = results[key][method.name] = []
            sampler = untrained if untrained is not None and method is START else pipe
            for case, video in generate(sampler, cases, method, settings.seed, settings.batch_size):
                rows.append(measure(case, video, trackers, camera=method.mode == "camera"))
                shown.keep(key, method.name, case, video)
                if (key, method.name) in COMPARED_WITH_REAL:
                    distances.add(video)
    return results, shown


def floors(
    foundation: Foundation, split: Split, trackers: dict[str, PointTracker], params: Params
) -> dict[str, list[Measured]]:
    """Held-out clips against their own tracks: as they are, and through the codec."""
    measured: dict[str, list[Measured]] = {"real": [], "codec": []}
    for case, frames in real_clips(split, params):
        decoded = to_uint8(foundation.decode(_encoded(foundation, frames).transpose(0, 1)[None]))[0]
        for name, video in (("real", frames), ("codec", decoded)):
            measured[name].append(measure(case, video, trackers, camera=False))
    if not measured["real"]:
        raise ContractError(f"data/sparse_flows/{split}: no held-out clip whose strokes stay visible; add videos")
    return measured


def error_table(results: dict[str, list[Measured]], params: Params) -> dict[str, Any]:
    """Entry by method: of the first tracker, with the second one's under `second`."""
    width, seed = params.video.width, params.evaluate.seed
    cases = [video.case for video in next(iter(results.values()))]
    table = {"still": error_entry([still_error(c.wanted).equivalent(width) for c in cases], _groups(cases), seed)}
    for name, videos in results.items():
        groups = _groups(video.case for video in videos)
        first, second = (
            error_entry([error.equivalent(width) for error in errors], groups, seed)
            for errors in _errors(videos).values()
        )
        table[name] = first | {"second": {key: second[key] for key in ("px", "ci95", "failures")}}
    return table


def agreement(results: dict[str, list[Measured]], params: Params) -> dict[str, Any]:
    """Whether the trackers rank the methods alike; real clips are no method."""
    made = {name: videos for name, videos in results.items() if name not in ("real", "codec")}
    first, second = (
        {name: np.array([error.px for error in list(_errors(videos).values())[which]]) for name, videos in made.items()}
        for which in range(2)
    )
    return ranking_agreement(
        first, second, _groups(video.case for video in next(iter(made.values()))), params.evaluate.seed
    )


def leakage(results: Results, trackers: tuple[str, str], params: Params) -> dict[str, Any]:
    """What follows a stroke though it should not, or does not though it should, in both modes; by the first tracker,
    with the second one's under `second`."""
    objects, camera = results["obj_mc"]["object_lora"], results["obj_mc"]["camera_lora"]
    rows: dict[str, tuple[list[Measured], Callable[[Motion], Following | None]]] = {
        "object_mode_object": (objects, lambda motion: motion.strokes),
        "object_mode_background": (objects, lambda motion: motion.background),
        "camera_mode_background": (camera, lambda motion: motion.background),
        "camera_mode_object_alone": (camera, lambda motion: motion.object_alone),
        "camera_strokes_object_alone": (results["scenes"]["camera_lora"], lambda motion: motion.object_alone),
    }
    entries: dict[str, Any] = {}
    for name, (videos, part) in rows.items():
        groups = _groups(video.case for video in videos)
        first, second = (
            following_entry(
                [part(video.motions[tracker]) for video in videos], groups, params.video.width, params.evaluate.seed
            )
            for tracker in trackers
        )
        if first is not None and second is not None:
            entries[name] = first | {"second": {key: second[key] for key in ("share", "ci95", "failures")}}
    return entries


def guidance(results: dict[str, list[Measured]], tracker: str, other: str, params: Params) -> dict[str, Any]:
    """What l_trajs of Eq. 5 does by one tracker, on the cases whose background is known."""
    scales = params.evaluate.trajectory_guidance_scales
    with_background = {
        scale: [video for video in results[method.name] if len(video.case.background)]
        for scale, method in zip(scales, guided(scales), strict=True)
    }
    return guidance_entry(with_background, tracker, other, params.evaluate.seed)


def fidelity(results: Results, params: Params) -> dict[str, Any]:
    """The look of each mode's videos, beside the codec's and that of real clips, which drift by their own motion."""
    rows = {
        "camera_lora": results["cam_mc"]["camera_lora"],
        "object_lora": results["obj_mc"]["object_lora"],
        "codec": results["cam_mc"]["codec"] + results["obj_mc"]["codec"],
    }
    real = [video.look for key in REAL_SPLIT for video in results[key]["real"]]
    entries = {
        name: look_entry([v.look for v in videos], _groups(v.case for v in videos), params.evaluate.seed)
        for name, videos in rows.items()
    }
    return entries | {"real": drift_entry([look.colour for look in real], [look.detail for look in real])}


class Distances:
    """Frechet distances between generated videos and real clips, each in features of its own name."""

    def __init__(self, foundation: Foundation, official: dict[str, Features], params: Params):
        self.foundation, self.official, self.params = foundation, official, params
        self.made: dict[str, list[np.ndarray]] = {name: [] for name in ("frechet_codec", *official)}

    def add(self, video: np.ndarray) -> None:
        """Take in a generated video (T, H, W, 3) uint8."""
        latents = _encoded(self.foundation, video).transpose(0, 1)
        self.made["frechet_codec"].append(codec_features(latents).cpu().numpy()[None])
        for name, features in self.official.items():
            self.made[name].append(features([video]))

    def entries(self) -> dict[str, Any]:
        """Distance by name, with what it was measured against."""
        return {name: self._entry(name) for name in self.made}

    def _entry(self, name: str) -> dict[str, Any]:
        made, network = np.concatenate(self.made[name]), self.official.get(name)
        rows, real = self._rows(name, only_held_out=True), "held-out clips"
        if len(rows) <= made.shape[1]:  # too few for a covariance of full rank
            rows, real = self._rows(name, only_held_out=False), "all clips, training ones included"
        entry = {"distance": round(frechet_distance(made, rows), 4), "n": len(made), "n_real": len(rows), "real": real}
        return entry | ({"variant": network.variant, "sha256": network.sha256} if network else {})

    def _rows(self, name: str, only_held_out: bool) -> np.ndarray:
        clips = [(split, clip) for split in SPLITS for clip in curated_clips(split, "eval" if only_held_out else None)]
        if len(clips) > MOST_REAL_CLIPS:
            rng = np.random.default_rng(self.params.evaluate.seed)
            clips = [clips[i] for i in rng.choice(len(clips), MOST_REAL_CLIPS, replace=False)]
        return np.concatenate([self._real(name, split, clip) for split, clip in clips])

    def _real(self, name: str, split: Split, clip: CuratedClip) -> np.ndarray:
        frames = self.params.video.frames
        if name in self.official:
            return self.official[name]([read_video(clip.video)[0][:frames]])
        latents = read_latents(latents_folder(split).path(clip.clip_id))[0][:frames]
        return codec_features(latents.transpose(0, 1)).numpy()[None]


def _encoded(foundation: Foundation, video: np.ndarray) -> torch.Tensor:
    """Latents (T, C, h, w) of frames (T, H, W, 3) uint8."""
    return foundation.encode_images(torch.from_numpy(video).movedim(-1, 1) / 255)


def _errors(videos: list[Measured]) -> dict[str, list[VideoError]]:
    """By tracker."""
    return {name: [video.motions[name].error for video in videos] for name in videos[0].motions}


def _groups(cases: Iterable[Case]) -> list[str]:
    return [case.picture for case in cases]


def main() -> None:
    try:
        params = load_params()
        with only_run("evaluate"), stage_run("evaluate", params) as tracker:
            run(params, tracker)
            for part in (motion_controlnet, camera_lora, object_lora):
                tracker.weights(part.OUTPUT)
            tracker.artifact(METRICS)
            tracker.artifact(REPORT, "report")
    except (ParamsError, ContractError, FoundationError, WeightsUnusable) as error:
        sys.exit(f"evaluate: {error}")
    print(f"evaluate: {METRICS}, {REPORT / 'index.html'}")


if __name__ == "__main__":
    main()

"""CamMC, ObjMC, leakage and distances on held-out pictures (Sec 3.1, App C.2): `python -m stages.evaluate`.

Writes metrics/evaluation.json and reports/evaluation/index.html with GIFs and contact sheets.
"""

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models.drawing import contact_sheet, draw_tracks, side_by_side
from models.estimators import PointTracker, load_estimator
from models.evaluation.experiment import Case, Method, generate, methods, to_uint8
from models.evaluation.features import codec_features
from models.evaluation.objects import clear_background, find_object
from models.evaluation.report import write_report
from models.evaluation.trajectories import camera_names, camera_tracks, object_names, object_track
from models.foundation import Foundation, FoundationError
from models.lora import load_lora
from models.metrics import (
    Summary,
    VideoError,
    background_share,
    equivalent_pixels,
    frechet_distance,
    still_error,
    summarise,
    trajectory_error,
)
from models.networks import MotionControlNet
from models.pipeline import ImageConductorPipeline, Settings
from models.video import encode_gif, read_video
from stages import camera_lora, motion_controlnet, object_lora
from stages.contracts import ContractError, CuratedClip, curated_clips, read_draws, read_tracks
from stages.items import write_atomically
from stages.latents import latents_folder, read_latents
from stages.memory import keep_freed_memory
from stages.params import SPLITS, Params, ParamsError, Split, load_params
from stages.tracking import StageRun, stage_run
from stages.training import FOUNDATION

METRICS = Path("metrics/evaluation.json")
REPORT = Path("reports/evaluation")
SHOWN_PICTURES = 2
Videos = dict[str, list[tuple[Case, np.ndarray]]]


def run(params: Params, tracker: StageRun) -> dict[str, Any]:
    keep_freed_memory()
    settings = params.evaluate
    if settings.features != "codec":
        raise ParamsError("params.yaml: evaluate.features: 'inception, i3d' needs the official weights; use codec")
    pipe = load_pipeline(params)
    compared = methods(settings.trajectory_guidance_scales)
    cases = {"cam_mc": camera_cases(params), "obj_mc": object_cases(params)}
    videos = {key: sample(pipe, cases[key], compared, params) for key in cases}
    follow = load_estimator("tracks", params.tracks.estimator, weights=params.tracks.weights)
    figures: dict[str, Any] = {}
    splits: dict[str, Split] = {"cam_mc": "camera", "obj_mc": "mixed"}
    for key, split in splits.items():
        errors = {"still": [still_error(case.wanted) for case in cases[key]]}
        for name, made in videos[key].items():
            errors[name] = [_error(follow, video, case.wanted) for case, video in made]
        errors |= floors(pipe.foundation, split, params, follow)
        figures[key] = {name: error_entry(values, params) for name, values in errors.items()}
    figures["leakage"] = {
        "object_mode_background": leakage(videos["obj_mc"]["object_lora"], follow, settings.seed, if_lost=1.0),
        "camera_mode_background": leakage(videos["obj_mc"]["camera_lora"], follow, settings.seed, if_lost=0.0),
    }
    generated = videos["cam_mc"]["camera_lora"] + videos["obj_mc"]["object_lora"]
    figures["distances"] = {"frechet_codec": codec_distance(pipe.foundation, [video for _, video in generated], params)}
    figures |= {"profile": params.profile, "seed": settings.seed}
    write_atomically(METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    write_report(REPORT / "index.html", figures, draw(videos, cases))
    tracker.metrics({f"{key}.{name}": row["px"] for key in cases for name, row in figures[key].items()})
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


def camera_cases(params: Params) -> list[Case]:
    """Every camera trajectory on the first frames of held-out camera clips."""
    video = params.video
    clips = held_out("camera", params.evaluate.images)
    return [
        _case(clip, "camera", name, camera_tracks(name, (video.width, video.height), video.frames), number)
        for number, (clip, name) in enumerate((clip, name) for clip in clips for name in camera_names())
    ]


def object_cases(params: Params) -> list[Case]:
    """Every object trajectory on the moving object of held-out mixed clips; clips without one are passed over."""
    video, chosen = params.video, 0
    cases: list[Case] = []
    for clip in held_out("mixed", None):
        found = find_object(*read_tracks(clip.tracks), params.tracks.grid, video.height)
        if found is None or chosen == params.evaluate.images:
            continue
        chosen += 1
        for name in object_names():
            wanted = object_track(name, found.start, (video.width, video.height), video.frames)
            background = clear_background(found.background, wanted[:, 0], video.width, video.height)
            cases.append(_case(clip, "mixed", name, wanted, 10_000 + len(cases), background))
    if not cases:
        raise ContractError("data/tracks/mixed: no held-out clip has an object that moves against the camera")
    return cases


def held_out(split: Split, count: int | None) -> list[CuratedClip]:
    """The first `count` held-out clips of a split. Raises ContractError if there is none."""
    clips = curated_clips(split, "eval")
    if not clips:
        raise ContractError(f"data/clips/{split}: no held-out clip; add videos or raise clips.held_out")
    return clips[:count]


def sample(pipe: ImageConductorPipeline, cases: list[Case], compared: list[Method], params: Params) -> Videos:
    settings = params.evaluate
    return {m.name: list(generate(pipe, cases, m, settings.seed, settings.batch_size)) for m in compared}


def floors(foundation: Foundation, split: Split, params: Params, follow: PointTracker) -> dict[str, list[VideoError]]:
    """The error of held-out clips against their own tracks: as they are, and through the codec."""
    errors: dict[str, list[VideoError]] = {"real": [], "codec": []}
    for clip in held_out(split, None):
        tracks, visibility = (part[: params.video.frames] for part in read_tracks(clip.tracks))
        draw = read_draws(clip.draws)[0]
        chosen = [n for n in draw if n >= 0 and visibility[:, n].all()]
        if not chosen:
            continue
        wanted = tracks[:, chosen]
        frames = read_video(clip.video)[0][: params.video.frames]
        latents = foundation.encode_images(torch.from_numpy(frames).movedim(-1, 1) / 255)
        decoded = to_uint8(foundation.decode(latents.transpose(0, 1)[None]))[0]
        for name, video in (("real", frames), ("codec", decoded)):
            errors[name].append(_error(follow, video, wanted))
    return errors


def leakage(made: list[tuple[Case, np.ndarray]], follow: PointTracker, seed: int, if_lost: float) -> dict[str, Any]:
    """Share of an object stroke that the background follows."""
    shares = []
    for case, video in made:
        if case.background is not None and len(case.background):
            tracks, visibility = follow(video, case.background)
            shares.append(background_share(tracks, visibility, case.wanted[:, 0], if_lost))
    summary = summarise([s.share for s in shares], [s.lost for s in shares], seed)
    return {"share": round(summary.mean, 4), **_spread(summary)}


def codec_distance(foundation: Foundation, videos: list[np.ndarray], params: Params) -> dict[str, Any]:
    """Frechet distance in the codec's features between generated videos and all curated clips."""
    made = [
        codec_features(foundation.encode_images(torch.from_numpy(video).movedim(-1, 1) / 255).transpose(0, 1))
        for video in videos
    ]
    real = [
        codec_features(read_latents(latents_folder(split).path(clip.clip_id))[0][: params.video.frames].transpose(0, 1))
        for split in SPLITS
        for clip in curated_clips(split)
    ]
    distance = frechet_distance(torch.stack(made).cpu().numpy(), torch.stack(real).numpy())
    return {"distance": round(distance, 4), "n": len(made), "n_real": len(real)}


def _error(follow: PointTracker, video: np.ndarray, wanted: np.ndarray) -> VideoError:
    tracks, visibility = follow(video, wanted[0])
    return trajectory_error(tracks, visibility, wanted)


def error_entry(values: list[VideoError], params: Params) -> dict[str, Any]:
    """One method's entry, in pixels at 384x256-equivalent."""
    scaled = [equivalent_pixels(value.px, params.video.width) for value in values]
    summary = summarise(scaled, [value.lost for value in values], params.evaluate.seed)
    return {"px": round(summary.mean, 4), **_spread(summary)}


def draw(videos: dict[str, Videos], cases: dict[str, list[Case]]) -> dict[str, list[tuple[str, str]]]:
    """GIFs and contact sheets in the report's folder; what the page shows, section by section."""
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.mkdir(parents=True)
    two_loras = ["controlnet", "camera_lora", "object_lora"]
    scales = [name for name in videos["obj_mc"] if name.startswith("object_lora_")]
    pictures = {
        "Camera strokes": _gifs("camera", videos["cam_mc"], two_loras, cases["cam_mc"]),
        "The same object stroke, two LoRAs (Fig 6)": _gifs("object", videos["obj_mc"], two_loras, cases["obj_mc"]),
        "Camera-free guidance, λ_trajs rising (Fig 7)": _gifs("guidance", videos["obj_mc"], scales, cases["obj_mc"]),
    }
    sheets = []
    for title, key, name in (
        ("camera LoRA, camera strokes", "cam_mc", "camera_lora"),
        ("object LoRA, object strokes", "obj_mc", "object_lora"),
    ):
        first = cases[key][0].picture
        rows = [draw_tracks(video, case.wanted, 2) for case, video in videos[key][name] if case.picture == first]
        file = f"sheet-{name}.png"
        Image.fromarray(contact_sheet(rows)).save(REPORT / file)
        sheets.append((title, file))
    return {"Contact sheets: one trajectory a row, time from left to right": sheets} | pictures


def _gifs(prefix: str, videos: Videos, names: Iterable[str], cases: list[Case]) -> list[tuple[str, str]]:
    names = list(names)
    shown = list(dict.fromkeys(case.picture for case in cases))[:SHOWN_PICTURES]
    by_case = {name: {case.number: video for case, video in videos[name]} for name in names}
    made = []
    for case in cases:
        if case.picture not in shown:
            continue
        panels = [draw_tracks(by_case[name][case.number], case.wanted) for name in names]
        file = f"{prefix}-{shown.index(case.picture)}-{case.trajectory}.gif"
        write_atomically(REPORT / file, encode_gif(side_by_side(panels, names), fps=6))
        made.append((case.trajectory.replace("_", " "), file))
    return made


def _case(
    clip: CuratedClip, split: Split, name: str, wanted: np.ndarray, number: int, background: np.ndarray | None = None
) -> Case:
    latents, text = read_latents(latents_folder(split).path(clip.clip_id))
    return Case(clip.clip_id, name, latents[0], text, wanted, number, background)


def _spread(summary: Summary) -> dict[str, Any]:
    return {
        "ci95": [round(summary.low, 4), round(summary.high, 4)],
        "n": summary.n,
        "failures": summary.failures,
    }


def main() -> None:
    try:
        params = load_params()
        with stage_run("evaluate", params) as tracker:
            run(params, tracker)
            for part in (motion_controlnet, camera_lora, object_lora):
                tracker.weights(part.OUTPUT)
            tracker.artifact(METRICS)
            tracker.artifact(REPORT, "report")
    except (ParamsError, ContractError, FoundationError) as error:
        sys.exit(f"evaluate: {error}")
    print(f"evaluate: {METRICS}, {REPORT / 'index.html'}")


if __name__ == "__main__":
    main()

"""Champion against challenger on the evaluation's test pictures, each as it is or would be served."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.drawing import draw_tracks, side_by_side
from models.errors import UserError
from models.estimators import PointTracker, second_tracker
from models.evaluation.challenge import PairedValues, challenge_values, judge_challenge
from models.evaluation.experiment import Case, Method, generate_cases
from models.evaluation.measure import Measured, measure
from models.evaluation.tables import TrackerPair
from models.modes import Mode
from models.networks.foundation import Foundation
from models.sampling.pipeline import ImageConductorPipeline
from models.serving.load import load_model, place
from models.video.write import encode_gif
from stages.evaluation.cases import ObjectScene, camera_cases, object_cases, object_scenes, scene_cases, tested_clips
from stages.evaluation.pipeline import load_trackers
from stages.params import Params
from stages.registry.versions import IDENTITY, Versions, identity
from stages.run.mlflow_store import short_cause

MODE_OF_SET: dict[str, Mode] = {"cam_mc": "camera", "obj_mc": "object", "scenes": "camera"}
GIF_FPS, GIF_COLOURS, GIF_SCALE = 6, 128, 2

Videos = dict[tuple[str, int], np.ndarray]


@dataclass(frozen=True)
class Challenge:
    """What the comparison with the champion came to. verdict, values: see `challenge`, if it was made.

    may_move: whether the alias may move to the new version, as far as the champion is concerned.
    """

    why: str
    may_move: bool
    verdict: dict[str, Any] | None = None
    values: dict[str, Any] = field(default_factory=dict)


class NotComparable(UserError):
    """The champion cannot be compared with the challenger."""


def compare(versions: Versions, challenger: Path, params: Params, pictures: Path) -> Challenge:
    """Compare a saved model's folder with the champion, if there is one, and say whether it may take the alias.

    Args:
        pictures: a folder that gets GIFs of both models.
    """
    champion = versions.champion()
    if champion is None:
        return Challenge("there is no champion yet", True)
    own, same = identity(challenger), Challenge("has the champion's weights and settings", True)
    if champion.tags.get(IDENTITY) == own:
        return same
    try:
        folder = versions.folder(champion)
        if identity(folder) == own:
            return same
        verdict = challenge(folder, challenger, params, pictures)
    except (UserError, OSError, versions.error) as error:
        return Challenge(
            f"cannot be compared with the champion, version {champion.version}: {short_cause(error)}. To serve it all "
            "the same: image-conductor release --to N",
            False,
        )
    values = verdict.pop("values")
    return Challenge(verdict["why"], verdict["better"], verdict, values)


def challenge(champion: Path, challenger: Path, params: Params, pictures: Path) -> dict[str, Any]:
    """Sample and measure both models on the same pictures, strokes and seeds, under the settings of each.

    Args:
        champion, challenger: saved models' folders.
        pictures: a folder that gets a GIF of both models for each trajectory on the first picture.

    Returns:
        What `judge_challenge` returns, and its arguments under `values`, as JSON can hold them.

    Raises:
        NotComparable: the champion's videos have another size or length.
    """
    scenes = object_scenes(params)
    cases, texts = challenge_cases(scenes, params), captions_of_tests(scenes)
    trackers = load_trackers(params.tracks.estimator, params.tracks.options())
    pair = TrackerPair(params.tracks.estimator, second_tracker(params.tracks.estimator))
    values: dict[str, dict[str, PairedValues]] = {}
    shown: dict[str, Videos] = {}
    for name, folder in (("champion", champion), ("challenger", challenger)):
        pipeline = place(load_model(str(folder)))
        pipeline.set_progress_bar_config(disable=True)
        require_size(pipeline, params)
        results, shown[name] = sample_and_measure(pipeline, cases, texts, trackers, params)
        values[name] = challenge_values(results, pair)
    draw_pairs(pictures, cases, shown)
    minimum_gain, seed = params.register_.minimum_gain, params.evaluate.seed
    verdict = judge_challenge(values["champion"], values["challenger"], minimum_gain, seed)
    by_model = {name: {key: each._asdict() for key, each in of_one.items()} for name, of_one in values.items()}
    return verdict | {"values": by_model | {"minimum_gain": minimum_gain, "seed": seed}}


def challenge_cases(scenes: list[ObjectScene], params: Params) -> dict[str, list[Case]]:
    """The evaluation's cases of both modes, by set."""
    return {
        "cam_mc": camera_cases(params),
        "obj_mc": object_cases(scenes, params),
        "scenes": scene_cases(scenes, params),
    }


def captions_of_tests(scenes: list[ObjectScene]) -> dict[str, str]:
    """The caption of each picture of the cases: of first frames of the camera split's test clips, and of scenes."""
    of_clips = {clip.clip_id: clip.caption for clip in tested_clips("camera")}
    return of_clips | {scene.case.picture: scene.caption for scene in scenes}


def require_size(pipeline: ImageConductorPipeline, params: Params) -> None:
    """Raise NotComparable unless the model's videos have the size and length of params.yaml."""
    made, wanted = pipeline.settings, params.video
    if (made.width, made.height, made.frames) != (wanted.width, wanted.height, wanted.frames):
        raise NotComparable(
            f"the champion makes {made.frames} frames of {made.width}x{made.height}, params.yaml asks for "
            f"{wanted.frames} of {wanted.width}x{wanted.height}"
        )


def sample_and_measure(
    pipeline: ImageConductorPipeline,
    cases: Mapping[str, list[Case]],
    texts: Mapping[str, str],
    trackers: dict[str, PointTracker],
    params: Params,
) -> tuple[dict[str, list[Measured]], Videos]:
    """The measured videos by set of cases, and the videos of each set's first picture by set and case number."""
    results: dict[str, list[Measured]] = {}
    shown: Videos = {}
    settings = params.evaluate
    for key, of_set in cases.items():
        mode, results[key] = MODE_OF_SET[key], []
        method = Method(key, mode, pipeline.settings.trajectory_guidance_scale)
        own = as_encoded_by(pipeline.foundation, of_set, texts)
        for case, video in generate_cases(pipeline, own, method, settings.seed, settings.batch_size):
            results[key].append(measure(case, video, trackers, camera=mode == "camera"))
            if case.picture == of_set[0].picture:
                shown[key, case.number] = video
    return results, shown


def as_encoded_by(foundation: Foundation, cases: list[Case], texts: Mapping[str, str]) -> list[Case]:
    """The cases with pictures and captions encoded by a model's own networks, as when it serves."""
    encoded: dict[str, dict[str, Any]] = {}
    for case in cases:
        if case.picture not in encoded:
            frame = torch.from_numpy(case.first_frame).movedim(-1, 0)[None] / 255
            encoded[case.picture] = {
                "first_latents": foundation.encode_images(frame)[0],
                "prompt_embeds": foundation.encode_text([texts[case.picture]])[0],
            }
    return [replace(case, **encoded[case.picture]) for case in cases]


def draw_pairs(folder: Path, cases: Mapping[str, list[Case]], shown: Mapping[str, Videos]) -> None:
    """A GIF with champion and challenger side by side for each shown video."""
    folder.mkdir(parents=True, exist_ok=True)
    models = list(shown)
    for key, of_set in cases.items():
        for case in of_set:
            if (key, case.number) in shown[models[0]]:
                panels = [draw_tracks(shown[name][key, case.number], case.wanted, GIF_SCALE) for name in models]
                file = folder / f"{key}-{case.trajectory}.gif"
                file.write_bytes(encode_gif(side_by_side(panels, models), GIF_FPS, GIF_COLOURS))

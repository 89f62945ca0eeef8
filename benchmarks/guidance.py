"""What l_trajs of Eq. 5 does, on many more pictures than the evaluation has: `python -m benchmarks.guidance`.

Runs on the trained model of the pipeline (`make repro` first). Pictures are first frames of procedural scenes that no
stage has seen; each shows an object that takes at least three strokes, which then follows each of the ten object
trajectories. Prints the entry of the evaluation's `guidance` for each tracker.
"""

import argparse
import json

import numpy as np
import torch

from models.estimators import load_estimator, second_tracker
from models.evaluation.experiment import Case, generate_cases, guided
from models.evaluation.measure import measure
from models.evaluation.objects import find_object
from models.evaluation.tables import TrackerPair, guidance_table
from models.geometry import point_grid
from models.networks.foundation import Foundation, embed_text
from models.pixels import to_uint8
from models.scenes import Scenes, moving_parts, render, sample_scenes, scene_captions
from stages.evaluation.cases import ObjectScene, many_stroke_cases
from stages.evaluation.pipeline import load_pipeline, load_trackers, settings_of
from stages.params import Params, load_params

SEEDS = 77_000_000  # of the scenes: those of `collect.seed: 77`, which is not the one in use


@torch.no_grad()
def fresh_scenes(count: int, foundation: Foundation, params: Params) -> list[ObjectScene]:
    """The first scenes of SEEDS whose moving object, found as in curated clips and one in truth, takes many strokes."""
    width, height, frames = params.video.width, params.video.height, params.video.frames
    grid = point_grid(width, height, params.tracks.grid)
    follow = load_estimator("tracks", params.tracks.estimator, **params.tracks.options())
    scenes: list[ObjectScene] = []
    seed = SEEDS
    while len(scenes) < count:
        drawn = sample_scenes(["mixed"], frames, [seed])
        rendered = render(drawn, width, height)
        video = to_uint8(rendered[0])
        found = find_object(*follow(video, grid), params.tracks.grid, height)
        if found is not None:
            latents = foundation.encode_images(rendered[0, :1])[0]
            text = embed_text(foundation.tokenizer, foundation.text_encoder, scene_captions(drawn))[0]
            no_stroke = np.zeros((0, 0, 2), np.float32)
            scene = ObjectScene(
                Case(str(seed), "", video[0], latents, text, no_stroke, 100 * len(scenes)),
                found,
                scene_captions(drawn)[0],
            )
            scenes += [scene] if _on_one_object(scene, drawn, params) else []
        seed += 1
    return scenes


def _on_one_object(scene: ObjectScene, drawn: Scenes, params: Params) -> bool:
    """Whether there are many strokes, and in truth all begin on one moving object: tracks may take ground for one."""
    cases = many_stroke_cases([scene], params)
    if not cases:
        return False
    starts = torch.from_numpy(cases[0].wanted[:1])
    parts = moving_parts(drawn, starts, params.video.width, params.video.height)
    return bool((parts > 0).all() and (parts == parts[0, 0]).all())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guidance", description=__doc__)
    parser.add_argument("--pictures", type=int, default=140)
    options = parser.parse_args()
    params = load_params()
    settings, tracks = params.evaluate, params.tracks
    pipe = load_pipeline(settings_of(params), settings.precision)
    trackers = load_trackers(tracks.estimator, tracks.options())
    cases = many_stroke_cases(fresh_scenes(options.pictures, pipe.foundation, params), params)
    results = {
        method.name: [
            measure(case, video, trackers, camera=False)
            for case, video in generate_cases(pipe, cases, method, settings.seed, settings.batch_size)
        ]
        for method in guided(settings.trajectory_guidance_scales)
    }
    pair = TrackerPair(params.tracks.estimator, second_tracker(params.tracks.estimator))
    print(json.dumps(guidance_table(results, pair, settings.trajectory_guidance_scales, settings.seed), indent=2))


if __name__ == "__main__":
    main()

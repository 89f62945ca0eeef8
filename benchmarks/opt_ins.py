"""What the faster, inexact ways to sample cost in motion error and picture: `python -m benchmarks.opt_ins`.

Runs on the trained model of the pipeline (`make repro` first) and its held-out cases. Each way is compared with the
exact one on the same cases and noise: the difference of the trajectory errors, with a 95 % interval over pictures
(bootstrap), seconds per video as a share of the exact way's, and PSNR between the two videos.
"""

import argparse
import json
import time
from dataclasses import replace

import numpy as np

from models.estimators import load_tracker_of_generated
from models.evaluation.experiment import Case, Method, generate_cases
from models.evaluation.look import psnr
from models.metrics import equivalent_pixels, interval, trajectory_error
from models.sampling.pipeline import ImageConductorPipeline
from stages.evaluation.cases import camera_cases, object_cases, object_scenes
from stages.evaluation.pipeline import load_pipeline, settings_of
from stages.params import Params, load_params

STEPS = 25
WAYS: dict[str, dict] = {
    "residual_interval 2": {"residual_interval": 2},
    "dpmsolver++, half the steps": {"solver": "dpmsolver++", "num_inference_steps": STEPS // 2},
    "both": {"solver": "dpmsolver++", "num_inference_steps": STEPS // 2, "residual_interval": 2},
}


def sampled(
    pipe: ImageConductorPipeline, cases: list[Case], method: Method, params: Params, **chosen
) -> tuple[list[np.ndarray], float]:
    """Videos of the cases in their order, and seconds."""
    settings = pipe.settings
    pipe.settings = replace(settings, **{"num_inference_steps": STEPS} | chosen)
    started = time.perf_counter()
    made = {case.number: video for case, video in generate_cases(pipe, cases, method, params.evaluate.seed, 8)}
    spent = time.perf_counter() - started
    pipe.settings = settings
    return [made[case.number] for case in cases], spent


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.opt_ins", description=__doc__).parse_args()
    params = load_params()
    pipe = load_pipeline(settings_of(params), params.evaluate.precision)
    follow = load_tracker_of_generated(params.tracks.estimator, **params.tracks.options())
    scale = equivalent_pixels(1.0, params.video.width)
    for method, cases in (
        (Method("camera_lora", "camera"), camera_cases(params)),
        (Method("object_lora", "object", 1.1), object_cases(object_scenes(params), params)),
    ):

        def errors(videos: list[np.ndarray], cases: list[Case] = cases) -> np.ndarray:
            followed = [(case, *follow(video, case.wanted[0])) for case, video in zip(cases, videos, strict=True)]
            return np.array([trajectory_error(t, v, case.wanted).px * scale for case, t, v in followed])

        exact, exact_seconds = sampled(pipe, cases, method, params)
        exact_errors = errors(exact)
        print(json.dumps({"method": method.name, "n": len(cases), "exact_px": round(exact_errors.mean(), 2)}))
        for name, chosen in WAYS.items():
            videos, seconds = sampled(pipe, cases, method, params, **chosen)
            change = errors(videos) - exact_errors
            low, high = interval(change, [case.picture for case in cases], params.evaluate.seed)
            pairs = [pair for a, b in zip(videos, exact, strict=True) for pair in zip(a, b, strict=True)]
            alike = np.mean([psnr(*pair) for pair in pairs])
            row = {"way": name, "time_share": round(seconds / exact_seconds, 3), "change_px": round(change.mean(), 2)}
            print(json.dumps(row | {"ci95": [round(low, 2), round(high, 2)], "psnr_to_exact": round(alike, 1)}))


if __name__ == "__main__":
    main()

"""How well the tracker that curation uses follows points whose tracks are known: metrics/tracks.json.

python -m stages.track_quality

Procedural scenes at a benchmark's size and speed; figures as in TAP-Vid (Doersch et al. 2022), in px of the scene.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.estimators import load_estimator
from models.geometry import point_grid
from models.metrics import tap_vid
from models.pixels import to_uint8
from models.scenes import Scenes, render, sample_scenes, true_tracks
from stages.data.items import write_atomically
from stages.params import Params
from stages.run.command import run_stage

METRICS = Path("metrics/tracks.json")
CAMERA_STEP, OBJECT_STEP = 0.05, 0.07  # frame heights a frame: the fastest pan and object of models/scenes.py


def run(params: Params) -> dict[str, float]:
    """Measure, print and write the figures: means over scenes."""
    settings = params.track_quality
    follow = load_estimator("tracks", params.tracks.estimator, **params.tracks.options())
    grid = point_grid(settings.width, settings.height, params.tracks.grid)
    rows = []
    for seed in tqdm(range(settings.scenes), desc="track_quality", unit="scene"):
        scene = at_speed(
            sample_scenes(["mixed"], settings.frames, [seed]),
            settings.camera_step / settings.height / CAMERA_STEP,
            settings.object_step / settings.height / OBJECT_STEP,
        )
        truth, seen = true_tracks(scene, torch.from_numpy(grid)[None], settings.width, settings.height)
        video = to_uint8(render(scene, settings.width, settings.height)[0])
        tracks, visibility = follow(video, grid)
        rows.append(tap_vid(tracks, visibility, truth[0].numpy(), seen[0].numpy()))
    figures = {name: round(float(np.nanmean([row[name] for row in rows])), 4) for name in rows[0]}
    entry = {"tracker": params.tracks.estimator, "scenes": settings.scenes, "points": len(grid)} | figures
    write_atomically(METRICS, (json.dumps(entry, indent=2) + "\n").encode())
    tqdm.write(json.dumps(entry))
    return figures


def at_speed(scenes: Scenes, camera: float, objects: float) -> Scenes:
    """The same scenes with the camera's and the objects' way from frame 0 multiplied."""
    start = scenes.centres[:, :, :1]
    return replace(scenes, camera=scenes.camera * camera, centres=start + (scenes.centres - start) * objects)


if __name__ == "__main__":
    run_stage("stages.track_quality")

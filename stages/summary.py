"""What the pipeline has made, where it lies and how to look at it: `python -m stages.summary`."""

import json
from pathlib import Path

from stages.params import SPLITS, Params, load_params

MADE = {
    "clips, one row per video": [f"data/clips/{split}/clips.parquet" for split in SPLITS],
    "report on the clips": ["reports/curation/index.html"],
    "what curation did": ["metrics/curation.json", "reports/curation/index.html"],
    "model, one folder": ["artifacts/model"],
    "loss curves": [f"artifacts/{stage}/loss.csv" for stage in ("motion_controlnet", "camera_lora", "object_lora")],
    "evaluation": ["metrics/evaluation.json", "reports/evaluation/index.html"],
    "registration": ["metrics/registration.json"],
    "seconds per stage": ["metrics/timing.json", "metrics/throughput.json"],
}
LOOK = {
    "numbers": "dvc metrics show",
    "curves and pictures in one page": "dvc plots show",
    "runs, videos and models": "make ui",
    "service": "make serve",
}


def summary(params: Params) -> str:
    """The whole text; only what exists is listed."""
    lines = [f"Image Conductor, profile {params.profile}", "", "Made:"]
    for what, paths in MADE.items():
        there = [path for path in paths if Path(path).exists()]
        lines += [f"  {what if path == there[0] else '':<26}{path}" for path in there]
    lines += [*_errors(), "", "Look at it:", *(f"  {what:<34}{how}" for what, how in LOOK.items())]
    return "\n".join([*lines, *_try_it(params)])


def _errors() -> list[str]:
    path = Path("metrics/evaluation.json")
    if not path.exists():
        return []
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    lines = ["", f"Trajectory error in px at 384x256, mean of n videos (limits and reasons: {path.parent}):"]
    for metric in ("cam_mc", "obj_mc"):
        for method, result in evaluation[metric].items():
            lines.append(f"  {metric}  {method:<20}{result['px']:8.2f}  n={result['n']}")
    return lines


def _try_it(params: Params) -> list[str]:
    frame = f"{params.video.width}x{params.video.height}"
    command = "image-conductor generate --image I.png --trajectories T.json --prompt P --mode object --output V.mp4"
    return ["", f"Try it on your own picture (it is fitted to {frame}):", f"  {command}", ""]


if __name__ == "__main__":
    print(summary(load_params()))

"""How the pipeline grows with the number of videos: `python -m benchmarks.scale --videos 2000 20000 200000`.

Every video is a few bytes and every clip, track and latent is tiny, so the time that remains is the time of the
project's own code: listing, tables, names, shards. Stand-ins replace decoding, estimators, encoder and networks.
Each phase is a process of its own:

first     collect, clips, captions, tracks, sparse_flows and latents of all videos, in one process
listing   the source is listed
nothing   the same stages with nothing changed
added     the same stages with one more video
training  the data set of training is opened and eight items are read
files     how many files DVC sees, by output
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml

from models.curation.outcome import Clip, Facts, View
from stages import captions, clips, collect, latents, sparse_flows, tracks
from stages.data.paths import FOUNDATION
from stages.params import Params
from stages.sources.listing import list_folder
from stages.sources.storage import LocalCopies
from stages.train.items import TrainingItems

ROOT = Path(__file__).parents[1]
INPUT = Path("inputs/mixed")
PHASES = ("first", "listing", "nothing", "added", "training")
OUTPUTS = ("videos", "clips", "captions", "tracks", "sparse_flows", "latents")
POINTS = 4  # tracks of a clip
ITEMS = 8  # training items that are read


def make_params() -> Params:
    """The pocket profile on a folder of videos, in one process, with nothing dropped."""
    values = yaml.safe_load((ROOT / "profiles/pocket.yaml").read_text(encoding="utf-8"))
    values["collect"]["source"], values["compute"]["backend"] = "folder", "serial"
    values["clips"]["drop_share"]["mixed"] = 0.0
    return Params.model_validate(values)


def draw_inputs(count: int) -> None:
    """`count` files of a few bytes, and a foundation by name."""
    INPUT.mkdir(parents=True)
    for number in range(count):
        (INPUT / f"{number}.mp4").write_bytes(f"video {number}".encode())
    FOUNDATION.mkdir(parents=True)
    (FOUNDATION / "weights.json").write_text("{}")


def stand_ins(params: Params) -> ExitStack:
    """Put stand-ins in place of decoding, estimators and the encoder."""
    frames = params.video.clip_frames
    pixels = np.zeros((frames, 8, 8, 3), np.uint8)
    rng = np.random.default_rng(0)
    track = np.cumsum(rng.normal(size=(frames, POINTS, 2)), 0).astype(np.float32), np.ones((frames, POINTS), np.bool_)
    encoders = SimpleNamespace(
        encode_images=lambda part: torch.zeros(len(part), 1, 1, 1), encode_text=lambda texts: torch.zeros(1, 1, 1)
    )

    def curate(path: Path, *others: object) -> list[Clip]:
        content = hashlib.sha512(path.read_bytes()).digest()
        facts = Facts(64, 64, 8.0, frames, 0, frames, 0, 1, 8.0, motion_score=1.0, signature=content.hex())
        facts.black = facts.frozen = facts.pan = facts.zoom = facts.roll = facts.object_share = 0.0
        facts.brightness = facts.sharpness = 99.0
        return [Clip(pixels, 8.0, facts, np.arange(frames) / 8, View(0, 0, 1, 1))]

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (clips.clip, "curate_scenes", curate),
        (clips, "load_estimator", lambda *_, **__: None),
        (clips.write, "encode_mp4", lambda *_: b"clip"),
        (tracks, "load_estimator", lambda *_, **__: lambda *__: track),
        (tracks, "read_clip", lambda path: pixels),
        (latents, "read_clip", lambda path: pixels),
        (latents, "_encoders", lambda *_: encoders),
    ]
    stack = ExitStack()
    for place, name, stand_in in replaced:
        stack.enter_context(patch.object(place, name, stand_in))
    return stack


def run_stages(params: Params) -> dict[str, float]:
    """Seconds of each stage."""
    seconds = {}
    with stand_ins(params):
        for stage in (collect, clips, captions, tracks, sparse_flows, latents):
            started = time.monotonic()
            stage.run("mixed", params)
            seconds[stage.__name__.removeprefix("stages.")] = round(time.monotonic() - started, 2)
    return seconds


def run_phase(phase: str) -> dict[str, Any]:
    """Seconds and GB of memory of one phase, in the folder of the measurement."""
    params = make_params()
    started, parts = time.monotonic(), {}
    match phase:
        case "listing":
            list_folder(str(INPUT), LocalCopies(Path("data/videos/mixed")), "collect.folder.mixed")
        case "training":
            items = TrainingItems("mixed", params, params.motion_controlnet, lambda index: "dense")
            for index in range(ITEMS):
                items[index]
        case _:
            if phase == "added":
                (INPUT / "one more.mp4").write_bytes(b"one more video")
            parts = run_stages(params)
    seconds = round(time.monotonic() - started, 2)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 2**20)
    return {"seconds": seconds, "gb": round(memory, 2), "stages": parts}


def measure(count: int) -> dict[str, Any]:
    """All phases with `count` videos."""
    found: dict[str, Any] = {}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        for phase in PHASES:
            command = [sys.executable, "-m", "benchmarks.scale", "--phase", phase]
            if phase == "first":
                command += ["--videos", str(count)]
            done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found[phase] = json.loads(done.stdout.splitlines()[-1])
            print(count, phase, json.dumps(found[phase]), flush=True)
        places = {name: Path(folder, "data", name) for name in OUTPUTS}
        found["files"] = {name: sum(path.is_file() for path in place.rglob("*")) for name, place in places.items()}
        print(count, "files", json.dumps(found["files"]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[2000, 20000], help="numbers of videos")
    parser.add_argument("--phase", choices=PHASES, help="measure this phase in the present folder")
    given = parser.parse_args()
    if given.phase:
        if given.phase == "first":
            draw_inputs(given.videos[0])
        print(json.dumps(run_phase(given.phase)))
        return
    for count in given.videos:
        measure(count)


if __name__ == "__main__":
    main()

"""How the pipeline grows with the number of videos: `python -m benchmarks.scale --videos 2000 20000 200000`.

Every video is a few bytes and every clip, track and latent is tiny, so the time that remains is the time of the
project's own code: listing, tables, names, shards. Stand-ins replace decoding, estimators, encoder and networks.
Each phase is a process of its own:

first     collect, clips, captions, tracks, sparse_flows and latents of all videos, in one process. Of more than 5,000
          videos, items are written straight into shards, to save time: the other phases find the same files
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
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from zipfile import ZipFile, ZipInfo

import numpy as np
import torch
import yaml

from models.curation.outcome import Clip, Facts, View
from models.curation.shared_footage import PER_SCENE
from models.curation.track_facts import TrackFacts
from stages import captions, clips, collect, latents, sparse_flows, tracks
from stages.data import measures
from stages.data.arrays import write_draws, write_tracks
from stages.data.items import write_atomically
from stages.data.paths import FOUNDATION, fetched_folder
from stages.data.shards import shard_of
from stages.params import Params
from stages.run.memory import collect_garbage_rarely
from stages.sources.listing import list_folder
from stages.sources.storage import LocalCopies
from stages.train.items import TrainingItems

ROOT = Path(__file__).parents[1]
INPUT = Path("inputs/mixed")
PHASES = ("first", "listing", "nothing", "added", "training")
OUTPUTS = ("videos", "clips", "captions", "tracks", "sparse_flows", "latents")
ONE_BY_ONE = 5_000  # videos; of more, the first phase writes items straight into shards
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
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "track.npz")
        write_tracks(file, *track)
        track_file = file.read_bytes()
        write_draws(file, np.zeros((1, 1), np.int32))
        draws_file = file.read_bytes()
    good = TrackFacts(1.0, 1.0, 1.0, 0.0, 0.5)
    encoders = SimpleNamespace(
        encode_images=lambda part: torch.zeros(len(part), 1, 1, 1), encode_text=lambda texts: torch.zeros(1, 1, 1)
    )

    def curate(path: Path, *others: object) -> list[Clip]:
        content = hashlib.sha512(path.read_bytes()).digest()
        facts = Facts(64, 64, 8.0, frames, 0, frames, 0, 1, 8.0, motion_score=1.0, signature=content.hex())
        facts.black = facts.frozen = facts.pan = facts.zoom = facts.roll = facts.object_share = 0.0
        facts.brightness = facts.sharpness = 99.0
        records = np.random.default_rng([*content]).integers(0, 1 << 63, 2 * PER_SCENE, np.uint64).astype(">u8")
        facts.footage = records.tobytes()[: PER_SCENE * 12].hex()
        return [Clip(pixels, 8.0, facts, np.arange(frames) / 8, View(0, 0, 1, 1))]

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (clips.clip, "curate_scenes", curate),
        (clips, "load_estimator", lambda *_, **__: None),
        (clips.write, "encode_mp4", lambda *_: b"clip"),
        (tracks, "load_estimator", lambda *_, **__: lambda *__: track),
        (tracks, "read_clip", lambda path: pixels),
        (tracks, "measure_tracks", lambda *_: good),
        (tracks, "write_tracks", lambda path, *_: write_atomically(path, track_file, lasting=False)),
        (sparse_flows, "read_tracks", lambda path: track),
        (sparse_flows.sparse, "choose_tracks", lambda *_: None),
        (sparse_flows, "write_draws", lambda path, _: write_atomically(path, draws_file, lasting=False)),
        (latents, "read_clip", lambda path: pixels),
        (latents, "_encoders", lambda *_: encoders),
    ]
    stack = ExitStack()
    for place, name, stand_in in replaced:
        stack.enter_context(patch.object(place, name, stand_in))
    return stack


def straight_into_shards() -> ExitStack:
    """Make stages write their items into shards at once, without a file for each item."""
    written: dict[Path, bytes] = {}

    def keep(path: Path, data: bytes, lasting: bool = True) -> None:
        written[path] = data

    def do_all(function: Callable[..., Any], items: Sequence[Any], *others: object, **options: object) -> Iterator[Any]:
        yield from map(function, items)
        shards: dict[Path, dict[str, bytes]] = defaultdict(dict)
        for path, data in written.items():
            shards[shard_of(path)][path.name] = data
        for shard, members in shards.items():
            with ZipFile(shard, "w") as archive:
                for name in sorted(members):
                    archive.writestr(ZipInfo(name), members[name])
        written.clear()

    stack = ExitStack()
    for module in (clips, measures, latents, sys.modules[__name__]):
        stack.enter_context(patch.object(module, "write_atomically", keep))
    for stage in (clips, tracks, sparse_flows, latents):
        stack.enter_context(patch.object(stage, "map_items", do_all))
    return stack


def run_stages(params: Params) -> dict[str, float]:
    """CPU seconds of each stage."""
    seconds = {}
    with stand_ins(params):
        for stage in (collect, clips, captions, tracks, sparse_flows, latents):
            started = time.process_time()
            stage.run("mixed", params)
            seconds[stage.__name__.removeprefix("stages.")] = round(time.process_time() - started, 2)
    return seconds


def run_phase(phase: str) -> dict[str, Any]:
    """Seconds, CPU seconds and GB of memory of one phase, in the folder of the measurement."""
    params = make_params()
    collect_garbage_rarely()
    started, worked, parts = time.monotonic(), time.process_time(), {}
    match phase:
        case "listing":
            list_folder(str(INPUT), LocalCopies(fetched_folder("mixed")), "collect.folder.mixed")
        case "training":
            items = TrainingItems("mixed", params, params.motion_controlnet, lambda index: "dense")
            for index in range(ITEMS):
                items[index]
        case _:
            if phase == "added":
                (INPUT / "one more.mp4").write_bytes(b"one more video")
            many = phase == "first" and sum(1 for _ in INPUT.iterdir()) > ONE_BY_ONE
            with straight_into_shards() if many else nullcontext():
                parts = run_stages(params)
    seconds, busy = round(time.monotonic() - started, 2), round(time.process_time() - worked, 2)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 2**20)
    return {"seconds": seconds, "cpu_seconds": busy, "gb": round(memory, 2), "stages": parts}


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

"""How fast curation is: `python -m benchmarks.curation`.

Two tables. `steps`: seconds of one core for each step of a clip, against a plain script for the same outputs, in turns
on the same videos. The script scans for cuts at full size, decodes all frames with OpenCV at full size, estimates the
flow between full-size frames, and tracks from frame to frame with nothing used twice. `scale`: wall time of the whole
chain of stages, each a program of its own, by number of videos: from nothing, with nothing changed, with one video
added, and with two workers in place of one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from scenedetect import AdaptiveDetector, SceneManager, open_video

from models.curation import sparse
from models.curation.clip import ClipSettings, curate_clip
from models.curation.cuts import longest_scene
from models.curation.frame_sampling import draw_frames
from models.curation.motion import motion_score
from models.curation.outcome import Clip, Facts
from models.estimators import load_estimator
from models.geometry import cover_crop, point_grid
from models.pixels import to_uint8
from models.scenes import render, sample_scenes
from models.video import read, write

ROOT = Path(__file__).parents[1]
SIZE, FRAMES, INTERVAL, GRID, FPS = (384, 256), 32, (1, 16), 16, 25.0  # of the paper's clips
STAGES = ("collect", "clips", "captions", "tracks", "sparse_flows")
DRAWS, MAX_TRACKS = 4, 8


class Clock(Counter):
    """CPU seconds by step."""

    def measure(self, step: str, call: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = call()
        self[step] += time.process_time() - started
        return result


def draw_videos(folder: Path, count: int, width: int, height: int, shots: list[int], first_seed: int = 0) -> None:
    """Procedural videos of several shots with hard cuts, drawn at a quarter of the size and enlarged."""
    for index in range(count):
        scenes = [
            sample_scenes([kind], frames, [first_seed + 10 * index + shot])  # type: ignore[list-item]
            for shot, (kind, frames) in enumerate(zip(("camera", "mixed", "object"), shots, strict=False))
        ]
        small = torch.cat([render(scene, width // 4, height // 4)[0] for scene in scenes])
        frames = to_uint8(small)
        large = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in frames])
        (folder / f"{first_seed + index:06d}.mp4").write_bytes(write.encode_mp4(large, FPS))


def project(path: Path, clock: Clock) -> Facts | None:
    """One video by this project's functions, as the stages call them; None if it gives no clip."""
    settings = ClipSettings(SIZE, FRAMES, INTERVAL, 2, True)
    cuts, flow = load_estimator("cuts", "adaptive"), load_estimator("flow", "dis")
    rng = np.random.default_rng(0)
    clip = clock.measure("clips", lambda: curate_clip(path, settings, cuts, flow, rng))
    if not isinstance(clip, Clip):
        return None
    data = clock.measure("clips", lambda: write.encode_mp4(clip.frames, FPS))
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        frames, _ = clock.measure("tracks", lambda: read.read_video(file.name))
    follow = load_estimator("tracks", "lucas_kanade")
    tracks = clock.measure("tracks", lambda: follow(frames, point_grid(*SIZE, GRID)))
    clock.measure("sparse_flows", lambda: sparse.choose_tracks(*tracks, MAX_TRACKS, DRAWS, np.random.default_rng(0)))
    return clip.facts


def plain(path: Path, clock: Clock) -> None:
    """The same video by a script that takes each tool as it comes."""

    def make_clip() -> np.ndarray:
        manager = SceneManager()
        manager.auto_downscale, manager.downscale = False, 1
        manager.add_detector(AdaptiveDetector())
        manager.detect_scenes(opened := open_video(str(path)))
        cuts = [(start.frame_num, start.frame_num) for start, _ in manager.get_scene_list()[1:]]
        count = opened.duration.frame_num if opened.duration else 0
        scene = longest_scene(cuts, count)
        chosen, _ = draw_frames(scene, FRAMES, INTERVAL, np.random.default_rng(0))
        frames = list(_decoded(path))
        taken = [frames[index] for index in chosen]
        grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in taken]
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        pairs = zip(grey[:-1], grey[1:], strict=True)
        motion_score(np.stack([flow.calc(before, after, None) for before, after in pairs]).transpose(0, 3, 1, 2))
        crop = cover_crop((taken[0].shape[1], taken[0].shape[0]), SIZE)
        scaled = np.stack([cv2.resize(frame, crop.scaled, interpolation=cv2.INTER_AREA) for frame in taken])
        return np.ascontiguousarray(crop.crop(scaled)[..., ::-1])

    def track(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, seen = [point_grid(*SIZE, GRID)], [np.ones(GRID**2, bool)]
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        for before, after in zip(grey[:-1], grey[1:], strict=True):
            forward, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points[-1], None)
            back, _, _ = cv2.calcOpticalFlowPyrLK(after, before, forward, None)
            seen.append((found[:, 0] == 1) & (np.linalg.norm(back - points[-1], axis=1) < 1))
            points.append(forward)
        return np.stack(points), np.stack(seen)

    clip = clock.measure("clips", make_clip)
    data = clock.measure("clips", lambda: write.encode_mp4(clip, FPS))
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        frames = clock.measure("tracks", lambda: np.stack(list(_decoded(Path(file.name)))))
    tracks = clock.measure("tracks", lambda: track(frames))
    clock.measure("sparse_flows", lambda: sparse.choose_tracks(*tracks, MAX_TRACKS, DRAWS, np.random.default_rng(0)))


def _decoded(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while (read := capture.read())[0]:
        yield read[1]


def compare(videos: list[Path], repeats: int) -> None:
    """CPU seconds a clip of both, in turns, after one video that warms both up."""
    ours, theirs, clips = Clock(), Clock(), 0
    project(videos[0], Clock())
    plain(videos[0], Clock())
    for path in videos * repeats:
        clock = Clock()
        if project(path, clock) is None:
            print(f"{path.name}: gives no clip, left out", file=sys.stderr)
            continue
        clips += 1
        ours.update(clock)
        plain(path, theirs)
    for step in [*theirs, "all"]:
        mine, other = (clock.total() if step == "all" else clock[step] for clock in (ours, theirs))
        row = {"step": step, "clips": clips, "project_s": round(mine / clips, 4), "plain_s": round(other / clips, 4)}
        print(json.dumps(row | {"times_faster": round(other / mine, 2)}), flush=True)


def scale(count: int, workers: int) -> dict[str, float]:
    """Wall seconds of the whole chain on `count` small videos: made, unchanged, with one more, and that one alone."""
    with tempfile.TemporaryDirectory() as folder:
        many, one = Path(folder) / "many", Path(folder) / "one"
        for place in (many, one):
            _set_up(place, workers)
        first = many / "inputs/mixed"
        draw_videos(first, count, 320, 180, [40])
        draw_videos(one / "inputs/mixed", 1, 320, 180, [40], first_seed=100_000)
        made, unchanged = _run(many), _run(many)
        shutil.copy(one / "inputs/mixed/100000.mp4", first)
        return {
            "videos": count,
            "workers": workers,
            "made_s": made,
            "unchanged_s": unchanged,
            "one_added_s": _run(many),
            "one_alone_s": _run(one),
        }


def _set_up(place: Path, workers: int) -> None:
    (place / "inputs/mixed").mkdir(parents=True)
    params = yaml.safe_load((ROOT / "profiles/pocket.yaml").read_text(encoding="utf-8"))
    params["collect"] |= {"source": "folder"}
    params["compute"] |= {"backend": "processes", "workers": workers}
    (place / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def _run(place: Path) -> float:
    started = time.perf_counter()
    for stage in STAGES:
        subprocess.run(
            [sys.executable, "-m", f"stages.{stage}", "--split", "mixed"],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return round(time.perf_counter() - started, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation", description=__doc__)
    parser.add_argument("--videos", type=Path, help="folder of videos for `steps`; drawn at 1280x720 if left out")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--counts", type=int, nargs="*", default=[100, 1000], help="videos of `scale`; none skips it")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.videos is None:
            draw_videos(Path(folder), 4, 1280, 720, [60, 120, 80])
        compare(sorted(p for p in (options.videos or Path(folder)).iterdir() if p.is_file()), options.repeats)
    for count in options.counts:
        print(json.dumps(scale(count, 1)), flush=True)
    if options.counts:
        print(json.dumps(scale(min(options.counts), 2)), flush=True)


if __name__ == "__main__":
    main()

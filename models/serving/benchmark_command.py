"""`image-conductor benchmark davis | movebench | magicbench`: end-point error on public benchmarks.

image-conductor benchmark davis --data DAVIS --model artifacts/model --output out/davis
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from models.disk import write_whole
from models.errors import UserError
from models.modes import LORAS
from models.public_benchmarks.case import PublicCase, as_strokes, at_frames, thinned_points
from models.public_benchmarks.quoted import Benchmark
from models.strokes.stroke import TrajectoryError

if TYPE_CHECKING:
    from models.estimators import PointTracker
    from models.public_benchmarks.error import EndPointError
    from models.sampling.pipeline import ImageConductorPipeline
    from models.sampling.settings import SamplingOptions

TRACKERS_OF_BENCHMARKS = ("lucas_kanade", "cotracker")
LAYOUTS: dict[Benchmark, str] = {
    "davis": """DAVIS 2017 at 480p (davischallenge.org, TrainVal and 480p):

  JPEGImages/480p/<sequence>/00000.jpg
  Annotations/480p/<sequence>/00000.png
  ImageSets/2017/val.txt

A grid of points is followed through each real video, at 832x480. --tracks gives the tracks instead, one file
for each sequence, in any format that `convert` reads.""",
    "movebench": """MoveBench of Wan-Move (hub: Ruihang/MoveBench):

  en/single_track.txt, en/multi_track.txt      <video>,<caption>
  en/first_frame/<id>.jpg
  en/track/single/<id>_tracks.npy, <id>_visibility.npy""",
    "magicbench": """MagicBench of MagicMotion (hub: quanhaol/MagicBench):

  videos/<id>.mp4
  masks/<id>/annotated_frame_00000.png         a colour for each object
  <name>.csv                                   captions, if it is there

Points on the objects of the first mask are followed through each real video.""",
}
METHOD = """
The model animates the first frame along the points. The points are then tracked in its video. The error is the
mean distance to where they should be, over the frames after the first in which a point is visible: the end-point
error of MotionStream. It is printed in pixels of the benchmark's picture and of a 384x256 video, beside the
figures that other papers print. The points of a long video are taken at the moments of the model's frames,
spread evenly over the whole video.

--output gets videos/, cases/ (one file per finished case; the same command goes on where it was), figures.json
and table.txt."""


def run_benchmark(options: argparse.Namespace) -> None:
    """Animate and measure every case that is not finished, write the figures and print the table."""
    import torch
    from tqdm import tqdm

    from models.estimators import load_tracker_of_generated
    from models.public_benchmarks.figures import benchmark_as_text, benchmark_figures
    from models.public_benchmarks.results import case_key, finished_result, keep_result
    from models.serving.load import load_model, model_folder, place

    cases = _cases(options)[: options.limit]
    if not cases:
        raise UserError(f"--data: {options.data}: the list of cases is empty")
    settings = _settings(options, model_folder(options.model))
    follow = load_tracker_of_generated(options.tracker)
    pipeline = None
    entries = []
    with tqdm(cases, desc=f"benchmark {options.benchmark}", unit="case") as bar:
        for case in bar:
            key = case_key(case, settings)
            entry = finished_result(options.output, case, key)
            if entry is None:
                if pipeline is None:
                    pipeline = place(load_model(options.model, getattr(torch, options.dtype)), options.offload)
                    pipeline.set_progress_bar_config(disable=True)
                entry = keep_result(options.output, case, key, _measured(pipeline, case, follow, options))
            entries.append(entry)
    figures = benchmark_figures(options.benchmark, entries, settings)
    text = benchmark_as_text(figures)
    write_whole(options.output / "figures.json", (json.dumps(figures, indent=2) + "\n").encode())
    write_whole(options.output / "table.txt", f"{text}\n".encode())
    print(f"{text}\n{options.output / 'figures.json'}, {options.output / 'table.txt'}")


def add_benchmark(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", dtypes: Sequence[str]) -> None:
    """Describe the command to the parser of `image-conductor`.

    Args:
        dtypes: names of the types that networks may have.
    """
    benchmark = commands.add_parser("benchmark", help="measure a model on a public benchmark")
    benchmarks = benchmark.add_subparsers(required=True, metavar="benchmark", dest="benchmark")
    for name in get_args(Benchmark):
        summary = LAYOUTS[name].partition("\n")[0].rstrip(":")
        command = benchmarks.add_parser(
            name,
            help=summary,
            description=f"{LAYOUTS[name]}\n{METHOD}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run_benchmark)
        command.add_argument("--data", type=Path, required=True, help="folder of the benchmark, laid out as above")
        command.add_argument("--model", default="artifacts/model", help="as of `generate`; default: %(default)s")
        command.add_argument("--output", type=Path, required=True, help="folder for videos and figures")
        command.add_argument("--mode", choices=LORAS, default="object", help="what the strokes move; default: object")
        command.add_argument("--seed", type=int, default=0, help="of the noise, the same in each case; default: 0")
        command.add_argument("--steps", type=int, help="sampling steps; the model's own if left out")
        command.add_argument("--limit", type=_count, help="only so many cases, the first ones")
        command.add_argument(
            "--tracker", choices=TRACKERS_OF_BENCHMARKS, default=TRACKERS_OF_BENCHMARKS[0], help="default: %(default)s"
        )
        command.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="of the networks; default: %(default)s")
        command.add_argument("--offload", action="store_true", help="as of `generate`")
        if name == "movebench":
            command.add_argument("--kind", choices=("single", "multi"), default="single", help="default: single")
            command.add_argument("--language", choices=("en", "zh"), default="en", help="of captions; default: en")
        else:
            command.add_argument("--grid", type=_count, default=16, help="N x N points of a picture; default: 16")
        if name == "davis":
            command.add_argument("--split", default="val", help="list in ImageSets/2017; default: val")
            command.add_argument("--tracks", type=Path, help="folder of track files, in pixels of 832x480")


def _cases(options: argparse.Namespace) -> list[PublicCase]:
    from models.estimators import load_estimator
    from models.public_benchmarks.davis import davis_cases
    from models.public_benchmarks.magicbench import magicbench_cases
    from models.public_benchmarks.movebench import movebench_cases

    if options.benchmark == "movebench":
        return movebench_cases(options.data, options.kind, options.language)
    follow = load_estimator("tracks", options.tracker)
    if options.benchmark == "davis":
        return davis_cases(options.data, options.split, options.grid, follow, options.tracks)
    return magicbench_cases(options.data, options.grid, follow)


def _settings(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What decides the figures beside the case's own files: the options, and the model's weights and settings."""
    from models.public_benchmarks.results import hash_of_file

    names = ("benchmark", "mode", "seed", "steps", "tracker", "dtype", "grid")
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    weights = {path.relative_to(folder).as_posix(): hash_of_file(path) for path in files}
    return {name: getattr(options, name) for name in names if hasattr(options, name)} | {"model": weights}


def _measured(
    pipeline: "ImageConductorPipeline", case: PublicCase, follow: "PointTracker", options: argparse.Namespace
) -> "EndPointError | str":
    """The error of one case, in its video as it is kept; or the reason why it has none."""
    from models.public_benchmarks.error import end_point_error
    from models.public_benchmarks.results import NO_STEP
    from models.serving.make_video import Wish, make_video
    from models.video.read import read_video

    motion = at_frames(thinned_points(case.read()), pipeline.settings.frames)
    steps: SamplingOptions = {"num_inference_steps": options.steps}
    path = options.output / "videos" / f"{case.name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        strokes = as_strokes(motion)
        wish = Wish(motion.picture, strokes, options.mode, case.prompt, seed=options.seed, options=steps)
        write_whole(path, make_video(pipeline, wish).data)
    except TrajectoryError as error:
        return str(error)
    return end_point_error(read_video(path)[0], motion, follow) or NO_STEP


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number

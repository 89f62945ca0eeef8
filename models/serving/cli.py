"""The command `image-conductor`.

image-conductor generate --image lake.png --trajectories strokes.json --prompt "a lake" --mode object --output lake.mp4
image-conductor import-official --base SD15 --unet unet.ckpt --image-controlnet image_controlnet.ckpt \
    --flow-controlnet flow_controlnet.ckpt --output official
image-conductor score --videos out/ours out/other --trajectories strokes --mode object --output metrics.json
image-conductor convert strokes.json tracks.npy --format wan-move
image-conductor track --video dance.mp4 --output strokes.json
image-conductor benchmark davis --data DAVIS --output out/davis
image-conductor studio
image-conductor study --videos out/ours out/other --trajectories strokes --votes votes.sqlite
image-conductor votes --votes votes.sqlite
"""

import argparse
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from models.errors import UserError
from models.geometry import Size
from models.modes import LORAS, MODES, Solver
from models.serving.benchmark_command import add_benchmark
from models.serving.convert import add_canvas_option, add_convert_options
from models.serving.fetch_command import add_fetch
from models.serving.image import read_image
from models.serving.studio.start import add_studio_options
from models.serving.track import add_track_options
from models.strokes.camera_presets import CAMERA_MOVES
from models.strokes.trajectories import Trajectories, load_trajectories, parse_trajectories

if TYPE_CHECKING:
    from models.sampling.settings import SamplingOptions

DEFAULT_MODEL = "artifacts/model"
FORMATS = (".mp4", ".gif")
DTYPES = ("float32", "bfloat16", "float16")
FIRST_TRACKERS = ("lucas_kanade", "cotracker")


def main(arguments: list[str] | None = None) -> None:
    """Run a command. What the user can put right ends with one line on stderr and status 1 (2 for bad options)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"image-conductor: {error}")


def _generate(options: argparse.Namespace) -> None:
    """Make one video from an image, strokes and a prompt."""
    if options.output.suffix not in FORMATS:
        raise UserError(f"--output: {options.output} must end in {' or '.join(FORMATS)}")
    image, notes, _ = read_image(options.image)
    trajectories = _trajectories(options, image.size)

    import torch

    from models.serving.load import load_model, place
    from models.serving.make_video import Wish, make_video

    pipeline = load_model(options.model, getattr(torch, options.dtype))
    if options.vae_tiling:
        if not hasattr(pipeline.vae, "enable_tiling"):
            raise UserError(f"--vae-tiling: this model's codec, {type(pipeline.vae).__name__}, has no tiles")
        pipeline.vae.enable_tiling()
    if options.checkpoint:
        pipeline.load_checkpoint(options.checkpoint)
    personal = dict(pipeline.settings.personal_loras)
    for text in options.lora:
        name, path, weight = _named_lora(text)
        pipeline.load_personal_lora(path, name)
        personal[name] = weight
    place(pipeline, options.offload)
    video = make_video(
        pipeline,
        Wish(
            image,
            trajectories,
            options.mode,
            options.prompt,
            options.negative_prompt,
            options.seed,
            options.output.suffix.removeprefix("."),
            _sampling_options(options, personal),
        ),
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(video.data)
    cropped = f", cropped {video.cropped}" if video.cropped else ""
    print(f"{options.output}: {video.num_frames} frames of {video.width}x{video.height}, seed {video.seed}{cropped}")
    for note in (*notes, *video.notes):
        print(f"note: {note}")


def _sampling_options(options: argparse.Namespace, personal: dict[str, float]) -> "SamplingOptions":
    """The sampling settings that the command line gives; the model's own hold for the others."""
    given: SamplingOptions = {
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "solver": options.solver,
        "residual_interval": options.residual_interval,
        "personal_loras": personal,
    }
    if options.plain_guidance or options.trajectory_guidance_scale is not None:
        given["trajectory_guidance_scale"] = options.trajectory_guidance_scale
    return given


def _trajectories(options: argparse.Namespace, canvas: Size) -> Trajectories:
    """The strokes of the file, with the camera move of `--camera`, if there is one, as its camera strokes."""
    drawn = load_trajectories(options.trajectories, canvas) if options.trajectories else None
    if options.camera is None:
        if drawn is None:
            raise UserError("--trajectories: give a file of strokes, or a camera move by --camera")
        return drawn
    if drawn is not None and drawn.camera_strokes:
        raise UserError(f"--camera: {options.trajectories} has camera strokes of its own; give one of them")
    move, _, amount = options.camera.partition("=")
    try:
        camera = {"move": move, "amount": float(amount)}
    except ValueError:
        raise UserError(f"--camera: expected MOVE=PIXELS, for example zoom_in=40, got {options.camera!r}") from None
    width, height = drawn.canvas if drawn else canvas
    named = parse_trajectories({"width": width, "height": height, "camera": camera})
    if drawn is None:
        return named
    if options.mode != "both":
        raise UserError(f"--camera: beside --trajectories it needs --mode both, got {options.mode}; give one of them")
    return replace(named, strokes=drawn.strokes)


def _import_official(options: argparse.Namespace) -> None:
    """Turn the authors' three checkpoints into a model's folder."""
    from models.origins import official

    if options.output.exists() and any(options.output.iterdir() if options.output.is_dir() else [options.output]):
        raise UserError(f"--output: {options.output} exists and is not empty; give a new folder")
    pipeline = official.import_official(
        options.unet, options.image_controlnet, options.flow_controlnet, options.base, options.config
    )
    pipeline.save_pretrained(options.output)
    use = "image-conductor generate --model" if options.base else "from Python, with latents and embeddings:"
    print(f"{options.output}: three networks, camera LoRA and object LoRA; use it: {use} {options.output}")


def _score(options: argparse.Namespace) -> None:
    """Measure folders of videos, by any method."""
    from models.comparison.score import score_videos, scores_as_text
    from models.estimators import SECOND_TRACKER, load_tracker_of_generated
    from models.evaluation.tables import TrackerPair

    pair = TrackerPair(options.tracker, SECOND_TRACKER)
    trackers = {name: load_tracker_of_generated(name) for name in pair}
    figures = score_videos(options.videos, options.trajectories, options.mode, pair, trackers, canvas=options.canvas)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(scores_as_text(figures))


def _study(options: argparse.Namespace) -> None:
    """Serve the page of a preference study until it is interrupted."""
    import waitress

    from models.comparison.study import Study, make_app

    study = Study.of(options.videos, options.trajectories, options.seed, options.canvas)
    app = make_app(study, options.votes, options.host)
    print(f"http://{options.host}:{options.port}  votes go to {options.votes}; stop with Ctrl-C")
    waitress.serve(app, host=options.host, port=options.port, ident=None)


def _votes(options: argparse.Namespace) -> None:
    """Say what the votes of a study come to."""
    from models.comparison.preferences import preferences, preferences_as_text
    from models.comparison.study import read_votes

    figures = preferences(read_votes(options.votes))
    if options.output is not None:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(preferences_as_text(figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="image-conductor", description="Animate an image along drawn trajectories.")
    commands = parser.add_subparsers(required=True, metavar="command")
    make = commands.add_parser("generate", help="make a video")
    make.set_defaults(run=_generate)
    make.add_argument("--image", type=Path, required=True, help="first frame; scaled and centre-cropped to the model's")
    make.add_argument(
        "--trajectories",
        type=Path,
        help="strokes in any format, see `convert`; in pixels of the image where the file does not say",
    )
    make.add_argument(
        "--camera", metavar="MOVE=PIXELS", help=f"a camera move, by itself or in mode both: {', '.join(CAMERA_MOVES)}"
    )
    make.add_argument("--prompt", default="", help="what the video shows")
    make.add_argument("--negative-prompt", default="", help="what classifier-free guidance leads away from")
    make.add_argument("--mode", choices=MODES, default="object", help="what the strokes move; default: object")
    make.add_argument("--output", type=Path, required=True, help="video file, .mp4 or .gif")
    make.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"saved model, or models:/name@alias of MLFLOW_TRACKING_URI; default: {DEFAULT_MODEL}",
    )
    make.add_argument("--seed", type=_seed, help="repeats a video; drawn if left out")
    make.add_argument("--steps", type=int, help="sampling steps; the model's own if left out")
    make.add_argument("--solver", choices=get_args(Solver), help="the model's own if left out")
    make.add_argument(
        "--residual-interval",
        type=int,
        help="recompute the ControlNet residuals every N steps and reuse them in between; the model's own if left out",
    )
    make.add_argument("--checkpoint", type=Path, help="a Stable Diffusion 1.5 community checkpoint")
    make.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="[NAME:]FILE[=WEIGHT]",
        help="a community LoRA, .safetensors or .ckpt; repeat it for more",
    )
    make.add_argument("--dtype", choices=DTYPES, default="float32", help="of the networks; default: float32")
    make.add_argument("--offload", action="store_true", help="VAE and text encoder on the GPU only while they work")
    make.add_argument("--vae-tiling", action="store_true", help="decode large frames in tiles, with less memory")
    make.add_argument("--guidance-scale", type=float, help="of the prompt, 1 is off; the model's own if left out")
    trajectory = make.add_mutually_exclusive_group()
    trajectory.add_argument(
        "--trajectory-guidance-scale", type=float, help="l_trajs of Eq. 5; the model's own if left out"
    )
    trajectory.add_argument("--plain-guidance", action="store_true", help="classifier-free guidance only, no Eq. 5")
    add_convert_options(commands.add_parser("convert", help="write a trajectory file in another tool's format"))
    add_track_options(commands.add_parser("track", help="take strokes from the motion of a video"))
    add_studio_options(commands.add_parser("studio", help="serve the drawing page"), DEFAULT_MODEL)

    official = commands.add_parser("import-official", help="read the authors' released checkpoints")
    official.set_defaults(run=_import_official)
    official.add_argument("--base", help="SD 1.5: folder in diffusers' layout, hub id, or one file")
    for name in ("unet", "image-controlnet", "flow-controlnet"):
        official.add_argument(f"--{name}", type=Path, required=True, help="the authors' .ckpt, or .safetensors")
    official.add_argument("--output", type=Path, required=True, help="new folder for the model")
    official.add_argument("--config", type=Path, help="JSON with network sizes, where they are not SD 1.5's")

    add_fetch(commands)
    add_benchmark(commands, DTYPES)
    measure = commands.add_parser("score", help="measure how far videos follow their trajectories, by any method")
    measure.set_defaults(run=_score)
    _add_videos(measure)
    measure.add_argument("--mode", choices=LORAS, required=True, help="what the strokes move: CamMC or ObjMC")
    measure.add_argument("--tracker", choices=FIRST_TRACKERS, default=FIRST_TRACKERS[0], help="default: %(default)s")
    measure.add_argument("--output", type=Path, required=True, help="figures, .json")

    ask = commands.add_parser("study", help="serve a page that asks people which of two videos they prefer")
    ask.set_defaults(run=_study)
    _add_videos(ask)
    ask.add_argument("--votes", type=Path, required=True, help="SQLite file; goes on where it was if it is there")
    ask.add_argument("--seed", type=_seed, default=0, help="of sides and order; default: %(default)s")
    ask.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    ask.add_argument("--port", type=int, default=8600, help="default: %(default)s")

    count = commands.add_parser("votes", help="shares and strengths from the votes of a study")
    count.set_defaults(run=_votes)
    count.add_argument("--votes", type=Path, required=True, help="SQLite file of `study`")
    count.add_argument("--output", type=Path, help="figures, .json; only printed if left out")
    return parser


def _named_lora(text: str) -> tuple[str, Path, float]:
    """Name, file and weight of `FILE`, `FILE=WEIGHT`, `NAME:FILE` or `NAME:FILE=WEIGHT`; a name of any script."""
    name, file, weight = "", text, "1"
    if not Path(text).exists() and "=" in text:
        file, _, weight = text.rpartition("=")
    if not Path(file).exists() and re.match(r"[\w-]+:", file):
        name, _, file = file.partition(":")
    try:
        return name or re.sub(r"[^\w-]", "_", Path(file).stem), Path(file), float(weight)
    except ValueError:
        raise UserError(f"--lora: expected [NAME:]FILE[=WEIGHT], got {text!r}") from None


def _add_videos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="a folder per method, named after it")
    named = "folder of strokes, named like the videos, in any format, see `convert`"
    parser.add_argument("--trajectories", type=Path, required=True, help=named)
    add_canvas_option(parser)


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2^63 - 1, got {seed}")
    return seed


if __name__ == "__main__":
    main()

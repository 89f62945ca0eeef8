"""The command `image-conductor generate`."""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from models.disk import write_whole
from models.errors import UserError
from models.geometry import Size
from models.modes import MODES, Solver
from models.sampling.picture import SeenPicture
from models.serving import DEFAULT_MODEL
from models.serving.image import ImageError, read_image
from models.strokes.camera_presets import CAMERA_MOVES
from models.strokes.trajectories import Trajectories, load_trajectories, parse_trajectories

if TYPE_CHECKING:
    from models.sampling.settings import SamplingOptions

FORMATS = (".mp4", ".gif")
DTYPES = ("float32", "bfloat16", "float16")


def add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command to the parser of `image-conductor`."""
    make = commands.add_parser("generate", help="make a video")
    make.set_defaults(run=run_generate)
    make.add_argument("--image", type=Path, required=True, help="first frame; scaled and centre-cropped to the model's")
    make.add_argument(
        "--keyframe",
        action="append",
        default=[],
        metavar="FRAME=FILE",
        help="a picture of a later frame, of the image's size, for example 15=last.png; repeat it for more",
    )
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
    make.add_argument("--seed", type=seed_number, help="repeats a video; drawn if left out")
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
    make.add_argument(
        "--lora-weight",
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help="weight of a community LoRA that the model already has; repeat it for more",
    )
    make.add_argument("--dtype", choices=DTYPES, default="float32", help="of the networks; default: float32")
    make.add_argument("--offload", action="store_true", help="VAE and text encoder on the GPU only while they work")
    make.add_argument("--vae-tiling", action="store_true", help="decode large frames in tiles, with less memory")
    make.add_argument("--guidance-scale", type=float, help="of the prompt, 1 is off; the model's own if left out")
    make.add_argument("--control-scale", type=float, help="how strongly the strokes act; 1 is as trained, 0 not at all")
    make.add_argument("--control-start", type=float, help="share of the sampling steps from which the strokes act, 0")
    make.add_argument("--control-end", type=float, help="share of the sampling steps up to which the strokes act, 1")
    trajectory = make.add_mutually_exclusive_group()
    trajectory.add_argument(
        "--trajectory-guidance-scale", type=float, help="l_trajs of Eq. 5; the model's own if left out"
    )
    trajectory.add_argument("--plain-guidance", action="store_true", help="classifier-free guidance only, no Eq. 5")


def run_generate(options: argparse.Namespace) -> None:
    """Make one video from an image, strokes and a prompt."""
    if options.output.suffix not in FORMATS:
        raise UserError(f"--output: {options.output} must end in {' or '.join(FORMATS)}")
    image, notes, _ = read_image(options.image)
    keyframes = [_keyframe(text) for text in options.keyframe]
    notes += tuple(f"--keyframe {frame}: {note}" for frame, picture in keyframes for note in picture.notes)
    trajectories = _trajectories(options, image.size)

    import torch

    from models.serving.load import load_model, note_added, place
    from models.serving.make_video import Wish, make_video

    pipeline = load_model(options.model, getattr(torch, options.dtype))
    if options.vae_tiling:
        if not hasattr(pipeline.vae, "enable_tiling"):
            raise UserError(f"--vae-tiling: this model's codec, {type(pipeline.vae).__name__}, has no tiles")
        pipeline.vae.enable_tiling()
    if options.checkpoint:
        pipeline.load_checkpoint(options.checkpoint)
        note_added(pipeline, "", options.checkpoint)
    personal = dict(pipeline.settings.personal_loras)
    for text in options.lora:
        name, path, weight = _named_lora(text)
        pipeline.load_personal_lora(path, name)
        note_added(pipeline, name, path)
        personal[name] = weight
    personal |= dict(_lora_weight(text) for text in options.lora_weight)
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
            notes=notes,
            keyframes=tuple((frame, picture.image) for frame, picture in keyframes),
        ),
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, video.data)
    cropped = f", cropped {video.cropped}" if video.cropped else ""
    print(f"{options.output}: {video.num_frames} frames of {video.width}x{video.height}, seed {video.seed}{cropped}")
    for note in video.notes:
        print(f"note: {note}")


def _sampling_options(options: argparse.Namespace, personal: dict[str, float]) -> "SamplingOptions":
    """The sampling settings that the command line gives; the model's own hold for the others."""
    given: SamplingOptions = {
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "solver": options.solver,
        "residual_interval": options.residual_interval,
        "controlnet_conditioning_scale": options.control_scale,
        "control_guidance_start": options.control_start,
        "control_guidance_end": options.control_end,
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


def _lora_weight(text: str) -> tuple[str, float]:
    """Name and weight of `NAME=WEIGHT`."""
    name, _, weight = text.rpartition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise UserError(f"--lora-weight: expected NAME=WEIGHT, got {text!r}") from None


def _keyframe(text: str) -> tuple[int, SeenPicture]:
    """Frame number and picture of `FRAME=FILE`."""
    frame, _, file = text.partition("=")
    if not frame.isdecimal() or not file:
        raise UserError(f"--keyframe: expected FRAME=FILE, for example 15=last.png, got {text!r}")
    try:
        return int(frame), read_image(Path(file))
    except ImageError as error:
        raise UserError(str(error).replace("--image", "--keyframe", 1)) from None


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


def seed_number(text: str) -> int:
    """A seed from 0 to 2^63 - 1 of the command line."""
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2^63 - 1, got {seed}")
    return seed

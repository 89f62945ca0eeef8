"""`image-conductor convert`: trajectory files from one tool's format to another's.

image-conductor convert strokes.json tracks.npy --format wan-move --frames 81
"""

import argparse
from pathlib import Path

from models.errors import UserError
from models.geometry import Size
from models.strokes.stroke import AUTHORS_CANVAS, MAX_POINTS, MAX_SIDE
from models.strokes.trajectories import FORMAT_NAMES, load_trajectories, save_trajectories


def run_convert(options: argparse.Namespace) -> None:
    """Read one file, write another, and say what was decided and what the format cannot hold."""
    if options.frames is not None and not 1 <= options.frames <= MAX_POINTS:
        raise UserError(f"--frames: must be from 1 to {MAX_POINTS}, got {options.frames}")
    drawn = load_trajectories(options.source, options.canvas)
    written = save_trajectories(drawn, options.target, options.format, options.frames)
    frames = f" of {written.frames} frames" if written.frames else ""
    count = len(drawn.strokes) + len(drawn.camera_strokes)
    print(f"{', '.join(map(str, written.paths))}: {count} strokes{frames} in format {written.format}")
    for sentence in (*drawn.notes, *written.lost):
        print(f"  {sentence}")


def add_convert_options(convert: argparse.ArgumentParser) -> None:
    """The options of `convert`."""
    convert.set_defaults(run=run_convert)
    convert.add_argument("source", type=Path, help="trajectory file of any format; its content says which")
    convert.add_argument("target", type=Path, help="file to write")
    convert.add_argument("--format", choices=FORMAT_NAMES, help="what to write; chosen by the suffix if left out")
    convert.add_argument(
        "--frames", type=int, help="positions of each stroke, for formats with one per frame; the source's if left out"
    )
    add_canvas_option(convert)


def add_canvas_option(parser: argparse.ArgumentParser) -> None:
    """The option that says what picture positions belong to, for formats that do not say it."""
    parser.add_argument(
        "--canvas",
        type=canvas_size,
        default=AUTHORS_CANVAS,
        metavar="WIDTHxHEIGHT",
        help="picture that positions belong to, for formats that do not say it; default: 384x256",
    )


def canvas_size(text: str) -> Size:
    """`WIDTHxHEIGHT` in pixels."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for example 832x480, got {text!r}") from None
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise argparse.ArgumentTypeError(f"sides must be from 1 to {MAX_SIDE}, got {text}")
    return width, height

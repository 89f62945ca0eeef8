"""The command `image-conductor`.

image-conductor generate --image lake.png --trajectories strokes.json --prompt "a lake" --mode object --output lake.mp4
image-conductor import-official --base SD15 --unet unet.ckpt --image-controlnet image_controlnet.ckpt \
    --flow-controlnet flow_controlnet.ckpt --output official
image-conductor score --videos out/ours out/other --trajectories strokes --mode object --output metrics.json
image-conductor convert strokes.json tracks.npy --format wan-move
image-conductor track --video dance.mp4 --output strokes.json
image-conductor benchmark davis --data DAVIS --output out/davis
image-conductor push --repo OWNER/NAME
image-conductor studio
image-conductor study --videos out/ours out/other --trajectories strokes --votes votes.sqlite
image-conductor votes --votes votes.sqlite
image-conductor explain lake.mp4 --remake again.mp4
image-conductor sync
"""

import argparse
import json
import sys
from pathlib import Path

from models.disk import disk_fault, write_whole
from models.errors import UserError
from models.modes import LORAS
from models.serving import DEFAULT_MODEL
from models.serving.project_commands import add_project_commands, run_project_command
from models.serving.studio.start import add_studio_options

FIRST_TRACKERS = ("lucas_kanade", "cotracker")


def main(arguments: list[str] | None = None) -> None:
    """Run a command. What the user can put right ends with one line on stderr and status 1 (2 for bad options)."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if not run_project_command(given):
            options = _parser(studio_alone=given[:1] == ["studio"]).parse_args(given)
            options.run(options)
    except Exception as error:
        if fault := disk_fault(error):
            sys.exit(f"image-conductor: {fault}")
        if isinstance(error, ValueError | OSError):
            sys.exit(f"image-conductor: {error}")
        raise


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
    from models.estimators import load_tracker_of_generated, second_tracker
    from models.evaluation.tables import TrackerPair

    pair = TrackerPair(options.tracker, second_tracker(options.tracker))
    trackers = {name: load_tracker_of_generated(name) for name in pair}
    figures = score_videos(options.videos, options.trajectories, options.mode, pair, trackers, canvas=options.canvas)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, (json.dumps(figures, indent=2) + "\n").encode())
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
        write_whole(options.output, (json.dumps(figures, indent=2) + "\n").encode())
    print(preferences_as_text(figures))


def _parser(studio_alone: bool) -> argparse.ArgumentParser:
    """The commands. For the studio nothing of the others is imported, so that its page opens soon."""
    parser = argparse.ArgumentParser(prog="image-conductor", description="Animate an image along drawn trajectories.")
    commands = parser.add_subparsers(required=True, metavar="command")
    if not studio_alone:
        _add_others(commands)
    add_studio_options(commands.add_parser("studio", help="serve the drawing page"), DEFAULT_MODEL)
    add_project_commands(commands)
    return parser


def _add_others(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from models.serving.benchmark_command import add_benchmark
    from models.serving.convert import add_convert_options
    from models.serving.fetch_command import add_fetch
    from models.serving.generate_command import DTYPES, add_generate, seed_number
    from models.serving.push import add_push
    from models.serving.track import add_track_options

    add_generate(commands)
    add_convert_options(commands.add_parser("convert", help="write a trajectory file in another tool's format"))
    add_track_options(commands.add_parser("track", help="take strokes from the motion of a video"))

    official = commands.add_parser("import-official", help="read the authors' released checkpoints")
    official.set_defaults(run=_import_official)
    official.add_argument("--base", help="SD 1.5: folder in diffusers' layout, hub id, or one file")
    for name in ("unet", "image-controlnet", "flow-controlnet"):
        official.add_argument(f"--{name}", type=Path, required=True, help="the authors' .ckpt, or .safetensors")
    official.add_argument("--output", type=Path, required=True, help="new folder for the model")
    official.add_argument("--config", type=Path, help="JSON with network sizes, where they are not SD 1.5's")

    add_fetch(commands)
    add_push(commands, DEFAULT_MODEL)
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
    ask.add_argument("--seed", type=seed_number, default=0, help="of sides and order; default: %(default)s")
    ask.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    ask.add_argument("--port", type=int, default=8600, help="default: %(default)s")

    count = commands.add_parser("votes", help="shares and strengths from the votes of a study")
    count.set_defaults(run=_votes)
    count.add_argument("--votes", type=Path, required=True, help="SQLite file of `study`")
    count.add_argument("--output", type=Path, help="figures, .json; only printed if left out")


def _add_videos(parser: argparse.ArgumentParser) -> None:
    from models.serving.convert import add_canvas_option

    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="a folder per method, named after it")
    named = "folder of strokes, named like the videos, in any format, see `convert`"
    parser.add_argument("--trajectories", type=Path, required=True, help=named)
    add_canvas_option(parser)


if __name__ == "__main__":
    main()

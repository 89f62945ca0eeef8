"""What a video was made from: `image-conductor explain V.mp4`.

Prints the record that the video carries, the registered version with these weights, the runs and commits that made it,
the hashes of dvc.lock, and the curated clips and their sources. With --remake it makes the video again and says whether
the file is the same, byte for byte. It can be on the machine that made the video, with the same code and libraries.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from models.errors import UserError
from models.serving import DEFAULT_MODEL
from models.serving.record import VideoRecord, read_record
from stages.params import Params, load_params
from stages.registry.made_from import local_chain, registered_chain, version_of
from stages.registry.versions import Versions
from stages.run.command import one_line_errors
from stages.run.mlflow_store import SQLITE

SHOWN_SETTINGS = ("num_inference_steps", "guidance_scale", "trajectory_guidance_scale", "solver", "personal_loras")


class NotRemade(UserError):
    """The video could not be made again byte for byte."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Explain a video, and make it again if asked to.

    Args:
        arguments: of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="image-conductor explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path, help="MP4 or GIF of `generate`, the service or the studio")
    parser.add_argument("--remake", type=Path, metavar="FILE", help="make the video again as this file, and compare")
    parser.add_argument("--model", help="the model's address; default: found by its version or its weights")
    parser.add_argument(
        "--weights", type=Path, action="append", default=[], metavar="FILE", help="a community file of the video"
    )
    options = parser.parse_args(arguments)
    with one_line_errors("explain"):
        record = read_record(options.video)
        if options.remake and options.remake.suffix != options.video.suffix:
            raise NotRemade(f"--remake: {options.remake} must end in {options.video.suffix}, like the video")
        if options.remake and options.remake.exists() and options.remake.samefile(options.video):
            raise NotRemade(f"--remake: {options.remake} is the video itself; name another file")
        params = load_params()
        print(as_words(options.video, record))
        versions, where = _registry(params)
        version = version_of(versions, record) if versions else None
        if versions and version:
            print("\n".join(registered_chain(versions, version)))
        else:
            print(f"registered: no version of these weights{where}")
        print("\n".join(local_chain(version, record)))
        if options.remake:
            print(_remade(record, options, versions, params))


def as_words(video: Path, record: VideoRecord) -> str:
    """The record, without its pictures."""
    settings = {name: record.settings.get(name) for name in SHOWN_SETTINGS}
    strokes = {name: value for name, value in record.strokes.items() if name not in ("width", "height")}
    canvas = f"{record.strokes.get('width')}x{record.strokes.get('height')}"
    added = [f"{json.dumps(each.lora) if each.lora else 'checkpoint'} (SHA-256 {each.sha256})" for each in record.added]
    lines = [
        f"{video}: {record.settings.get('frames')} frames of {record.settings.get('width')}x"
        f"{record.settings.get('height')}, mode {record.mode}, seed {record.seed}",
        f"model: {record.registered or 'from a folder'}, weights {record.weights or 'unknown'}",
        *([f"community weights: {', '.join(added)}"] if added else []),
        f"prompt: {json.dumps(record.prompt)}, negative prompt: {json.dumps(record.negative_prompt)}",
        f"settings: {json.dumps(settings)}",
        f"strokes on {canvas}: {json.dumps(strokes)}",
        f"pictures: at frame {', '.join(str(each.frame) for each in record.pictures)}, in the record",
        f"code {record.code}, {record.precision} on {record.device}, {json.dumps(record.libraries)}",
    ]
    return "\n".join(lines)


def _registry(params: Params) -> tuple[Versions | None, str]:
    """The registry, or why there is none."""
    uri = params.mlflow.tracking_uri
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return None, f": there is no {uri.removeprefix(SQLITE)} here"
    try:
        return Versions(params), f" in {uri}"
    except UserError as error:
        return None, f": {error}"


def _remade(record: VideoRecord, options: argparse.Namespace, versions: Versions | None, params: Params) -> str:
    """Make the video again and say how it compares.

    Raises:
        UserError: it could not be made, or is not the same.
    """
    from models.serving.remake import remake

    version = version_of(versions, record) if versions else None
    found = str(versions.folder(version)) if versions and version else DEFAULT_MODEL
    remake(record, options.model or found, options.weights, options.remake)
    if options.remake.read_bytes() == options.video.read_bytes():
        return f"{options.remake}: the same as {options.video}, byte for byte"
    old, new = record.model_dump(), read_record(options.remake).model_dump()
    other = [name for name in old if old[name] != new[name]]
    why = f"other {', '.join(other)}" if other else "another machine, or the file was changed after it was made"
    raise NotRemade(f"{options.remake}: made, but not the same bytes as {options.video}: {why}")

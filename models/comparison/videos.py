"""Folders of videos by any method, with the trajectories of their requests.

    videos/<method>/<name>.mp4                 trajectories/<name>.json
    videos/<method>/<picture>/<name>.mp4       trajectories/<picture>/<name>.json

A method is a folder with the method's name. Each trajectory file needs a video of the same name in every method. A name
may contain a folder, which stands for one picture. Intervals take account of which videos share a picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.strokes.formats.wan_move import is_visibility

VIDEO_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi")
TRAJECTORY_SUFFIXES = (".json", ".npy", ".npz", ".safetensors", ".pth", ".pt")
NAMED_PROBLEMS = 5


class Item(NamedTuple):
    """name: relative, without suffix; picture: its folder, or the name itself where it has none; trajectories: the
    file; videos: method -> file."""

    name: str
    picture: str
    trajectories: Path
    videos: dict[str, Path]


def find_items(videos: Sequence[Path], trajectories: Path) -> list[Item]:
    """Match the methods' videos with the trajectories, in order of names.

    Raises:
        ValueError: a folder is missing or empty, two methods have one name, a name has several files, or a trajectory
            has no video, or a video no trajectory.
    """
    if len({folder.name for folder in videos}) < len(videos):
        raise ValueError(f"--videos: folders must have names of their own, got {', '.join(map(str, videos))}")
    strokes = _files("--trajectories", trajectories, TRAJECTORY_SUFFIXES)
    methods = {folder.name: _files("--videos", folder, VIDEO_SUFFIXES) for folder in videos}
    for folder in videos:
        found = methods[folder.name]
        _refuse(f"--videos: {folder}: no video for", strokes.keys() - found.keys(), "; a failed one counts, give it")
        _refuse(f"--trajectories: {trajectories}: no trajectories for", found.keys() - strokes.keys(), "")
    return [
        Item(name, _picture(name), path, {method: found[name] for method, found in methods.items()})
        for name, path in sorted(strokes.items())
    ]


def _files(option: str, folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files below a folder by their relative name without suffix."""
    if not folder.is_dir():
        raise ValueError(f"{option}: {folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not is_visibility(path):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise ValueError(f"{option}: {files[name]} and {path} have one name; remove one")
            files[name] = path
    if not files:
        raise ValueError(f"{option}: {folder}: holds no file that ends in {', '.join(suffixes)}")
    return files


def _picture(name: str) -> str:
    folder = name.rpartition("/")[0]
    return folder or name


def _refuse(problem: str, names: set[str], remedy: str) -> None:
    if names:
        more = f" and {len(names) - NAMED_PROBLEMS} more" if len(names) > NAMED_PROBLEMS else ""
        raise ValueError(f"{problem} {', '.join(sorted(names)[:NAMED_PROBLEMS])}{more}{remedy}")

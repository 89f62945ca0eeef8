"""Whether a source of videos has changed: a digest of the names, sizes and times of its files. No video is read."""

import hashlib
from pathlib import Path

from stages.params import SPLITS, Params, Split
from stages.sources.storage import File, find_file, list_files


def source_digest(params: Params) -> str:
    """SHA-256 over the settings of `collect` and over every file of its sources, local or in a storage.

    Raises:
        SourceError: a source is not there, or cannot be read.
    """
    digest = hashlib.sha256(params.collect.model_dump_json().encode())
    for split in SPLITS:
        for name, file in _files(params, split):
            digest.update(f"{split}\0{name}\0{_state(file)}\n".encode())
    return digest.hexdigest()


def _files(params: Params, split: Split) -> list[tuple[str, File]]:
    collect = params.collect
    match collect.source_of(split):
        case "folder":
            return [*list_files(collect.folder[split], f"collect.folder.{split}").items()]
        case "webvid":
            table = find_file(collect.webvid.csv, "collect.webvid.csv")
            return [("csv", table), *list_files(collect.webvid.videos, "collect.webvid.videos").items()]
        case "realestate10k":
            cameras = list_files(collect.realestate10k.cameras, "collect.realestate10k.cameras")
            videos = list_files(collect.realestate10k.videos, "collect.realestate10k.videos")
            return [*cameras.items(), *videos.items()]
        case _:
            return []  # synthetic videos follow from the settings alone


def _state(file: File) -> str:
    """Size and time of a local file; what the storage says of a remote one; "gone" for one that left meanwhile."""
    if not isinstance(file, Path):
        return file.version
    try:
        found = file.stat()
    except OSError:
        return "gone"
    return f"{found.st_size} {found.st_mtime_ns}"

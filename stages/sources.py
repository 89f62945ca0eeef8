"""Sources of local videos for `collect`: a folder, WebVid's csv, RealEstate10K's camera files.

Each lists what it names, also what cannot be found: a missing file is a row with a reason, not a silent gap.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pandas as pd

CAPTIONS_FILE = "captions.csv"


class SourceError(ValueError):
    """A source that cannot be read at all; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class SourceVideo:
    """A video as its source names it; `start` and `end` in seconds, None for all; `reason` if it cannot be used."""

    video: str
    path: Path
    caption: str = ""
    start: float | None = None
    end: float | None = None
    reason: str = ""


def list_folder(folder: Path) -> list[SourceVideo]:
    """Every file below `folder` (hidden ones and captions.csv apart), with its caption if captions.csv has one.

    Raises:
        SourceError: no such folder, or captions.csv is not a csv with the columns video and caption.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; create it or change collect.folder")
    captions = _read_captions(folder / CAPTIONS_FILE)
    found = {_printable(path.relative_to(folder)): path for path in _files(folder)}
    videos = [SourceVideo(name, path, captions.get(name, "")) for name, path in found.items()]
    missing = captions.keys() - found.keys()
    return videos + [SourceVideo(name, folder / name, captions[name]) for name in missing]


def list_webvid(csv: Path, videos: Path) -> list[SourceVideo]:
    """WebVid's table (videoid, contentUrl, duration, page_dir, name): `<page_dir>/<videoid>.mp4` or `<videoid>.mp4`.

    Raises:
        SourceError: the csv is missing or lacks a column.
    """
    rows = _read_csv(csv, ["videoid", "page_dir", "name"], "collect.webvid.csv")
    listed = []
    for row in rows.drop_duplicates("videoid", keep="last").itertuples():
        nested, flat = f"{row.page_dir}/{row.videoid}.mp4", f"{row.videoid}.mp4"
        name = nested if (videos / nested).is_file() else flat
        listed.append(SourceVideo(name, videos / name, row.name))
    return listed


def list_realestate10k(cameras: Path, videos: Path) -> list[SourceVideo]:
    """RealEstate10K's camera files: the YouTube address, then one line per frame that starts with its microsecond.

    Each file names the part of `<YouTube id>.mp4` between its first and its last frame.

    Raises:
        SourceError: no such folder.
    """
    if not cameras.is_dir():
        raise SourceError(f"{cameras}: no such folder; change collect.realestate10k.cameras")
    return [_realestate10k_video(path, cameras, videos) for path in sorted(cameras.rglob("*.txt"))]


def _realestate10k_video(path: Path, cameras: Path, videos: Path) -> SourceVideo:
    name = _printable(path.relative_to(cameras))
    try:
        address, *lines = path.read_text(encoding="utf-8").splitlines()
        identity = parse_qs(urlparse(address.strip()).query)["v"][0]
        times = [int(line.split()[0]) / 1e6 for line in lines if line.strip()]
        return SourceVideo(name, videos / f"{identity}.mp4", start=min(times), end=max(times))
    except (OSError, ValueError, LookupError):
        reason = "not a RealEstate10K camera file: expected an address with v=<id>, then lines that start with a time"
        return SourceVideo(name, path, reason=reason)


def _files(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Files below a folder in order of name, through links but never in circles; pipes and devices left out."""
    if (real := folder.resolve()) in seen:
        return
    for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
        if path.name.startswith(".") or (path.name == CAPTIONS_FILE and not seen):
            continue
        if path.is_dir():
            yield from _files(path, seen | {real})
        elif path.is_file() or path.is_symlink():
            yield path


def _read_captions(csv: Path) -> dict[str, str]:
    if not csv.exists():
        return {}
    rows = _read_csv(csv, ["video", "caption"], "the captions of collect.folder")
    return dict(zip(rows["video"].str.strip(), rows["caption"].str.strip(), strict=True))


def _read_csv(csv: Path, columns: list[str], field: str) -> pd.DataFrame:
    try:
        rows = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{csv}: no such file; see {field}") from None
    except (ValueError, OSError) as error:
        raise SourceError(f"{csv}: not a readable csv ({error}); save it as UTF-8 with commas") from None
    if missing := [column for column in columns if column not in rows]:
        raise SourceError(
            f"{csv}: column {', '.join(missing)} is missing; the first line must name {', '.join(columns)}"
        )
    return rows


def _printable(path: Path) -> str:
    """A path as text that any file can hold: bytes of the name that are no UTF-8 are escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")

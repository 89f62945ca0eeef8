"""Sources of videos for `collect`: a folder, WebVid's csv, RealEstate10K's camera files; local or in a storage.

A source lists all videos that it names. A video whose file is missing is a row with a reason.
"""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlparse

import pandas as pd

from models.curation.poses import parse_camera_file
from stages.params import RealEstate10KParams, WebVidParams
from stages.sources.storage import File, LocalCopies, SourceError, find_file, list_files

CAPTIONS_FILE = "captions.csv"
SIDECARS = (".txt", ".json")  # suffixes of caption files; the earlier one wins
NOT_FOUND = "file not found"


@dataclass(frozen=True)
class SourceVideo:
    """A video as its source names it; `start` and `end` in seconds, None for all; `reason` if it cannot be used.

    `poses` is the file with the camera's poses, if the source has one.
    """

    video: str
    file: File | None = None
    caption: str = ""
    start: float | None = None
    end: float | None = None
    poses: File | None = None
    reason: str = ""


def list_folder(folder: str, copies: LocalCopies, parameter: str) -> list[SourceVideo]:
    """Every file below a folder, captions.csv and the captions beside videos apart.

    A video's caption is that of captions.csv, or of a file of its name beside it: the whole of `clip.txt`, or the field
    `caption` or `text` of `clip.json`.

    Args:
        folder: A path or a URL.
        parameter: That names it, for messages.

    Raises:
        SourceError: no such folder, or captions.csv is not a csv with the columns video and caption.
    """
    files = list_files(folder, parameter)
    csv = files.pop(CAPTIONS_FILE, None)
    captions = {} if csv is None else _read_captions(csv, copies, parameter)
    sidecars, texts = _sidecars(files)
    asked = [video for video in sidecars if video not in captions]
    paths = dict(zip(asked, copies.of([files[sidecars[video]] for video in asked], parameter), strict=True))
    videos = []
    for name, file in files.items():
        if name in paths:
            videos.append(_captioned(name, file, paths[name], sidecars[name]))
        elif name not in texts:
            videos.append(SourceVideo(name, file, captions.get(name, "")))
    missing = captions.keys() - files.keys()
    return videos + [SourceVideo(name, caption=captions[name], reason=NOT_FOUND) for name in missing]


def list_webvid(source: WebVidParams, copies: LocalCopies) -> list[SourceVideo]:
    """WebVid's table (videoid, contentUrl, duration, page_dir, name): `<page_dir>/<videoid>.mp4` or `<videoid>.mp4`.

    Raises:
        SourceError: the csv or the folder is missing, or a column is.
    """
    csv = find_file(source.csv, "collect.webvid.csv")
    rows = _read_csv(csv, copies, ["videoid", "page_dir", "name"], "collect.webvid.csv")
    found = list_files(source.videos, "collect.webvid.videos")
    listed = []
    for row in rows.drop_duplicates("videoid", keep="last").itertuples():
        nested, flat = f"{row.page_dir}/{row.videoid}.mp4", f"{row.videoid}.mp4"
        name = nested if nested in found else flat
        listed.append(SourceVideo(name, found.get(name), row.name, reason="" if name in found else NOT_FOUND))
    return listed


def list_realestate10k(source: RealEstate10KParams, copies: LocalCopies) -> list[SourceVideo]:
    """RealEstate10K's camera files, see `models.curation.poses`.

    Each names the part of `<YouTube id>.mp4` between its first and its last frame, and gives the poses in it.

    Raises:
        SourceError: one of the folders is missing.
    """
    parameter = "collect.realestate10k.cameras"
    cameras = {name: file for name, file in list_files(source.cameras, parameter).items() if name.endswith(".txt")}
    found = list_files(source.videos, "collect.realestate10k.videos")
    paths = copies.of(cameras.values(), parameter)
    return [
        _realestate10k_video(name, file, path, found) for (name, file), path in zip(cameras.items(), paths, strict=True)
    ]


def _realestate10k_video(name: str, camera: File, path: Path, videos: dict[str, File]) -> SourceVideo:
    try:
        address, poses = parse_camera_file(path.read_text(encoding="utf-8"))
        video = f"{parse_qs(urlparse(address).query)['v'][0]}.mp4"
    except (OSError, ValueError) as error:
        return SourceVideo(name, reason=f"not a RealEstate10K camera file: {error}")
    except LookupError:
        return SourceVideo(name, reason="not a RealEstate10K camera file: line 1 is no address with v=<id>")
    start, end = float(poses.times[0]), float(poses.times[-1])
    if video not in videos:
        return SourceVideo(name, start=start, end=end, reason=f"{NOT_FOUND}: {video}")
    return SourceVideo(name, videos[video], start=start, end=end, poses=camera)


def _sidecars(files: dict[str, File]) -> tuple[dict[str, str], set[str]]:
    """The text that has the caption of each video, by name, and all texts that lie beside a video of their name."""
    texts: dict[PurePosixPath, dict[str, str]] = {}
    for name in files:
        path = PurePosixPath(name)
        if (suffix := path.suffix.lower()) in SIDECARS:
            texts.setdefault(path.with_suffix(""), {})[suffix] = name
    beside, used = {}, set()
    for name in files:
        path = PurePosixPath(name)
        if path.suffix.lower() not in SIDECARS and (own := texts.get(path.with_suffix(""))):
            beside[name] = own[min(own, key=SIDECARS.index)]
            used |= set(own.values())
    return beside, used


def _captioned(name: str, file: File, sidecar: Path, sidecar_name: str) -> SourceVideo:
    try:
        return SourceVideo(name, file, _sidecar_caption(sidecar))
    except (OSError, ValueError, RecursionError) as error:
        return SourceVideo(name, reason=f"its caption in {sidecar_name} cannot be read: {error}")


def _sidecar_caption(path: Path) -> str:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() != ".json":
        return text.strip()
    fields = json.loads(text)
    for field in ("caption", "text"):
        if isinstance(fields, dict) and isinstance(fields.get(field), str):
            return fields[field].strip()
    raise ValueError("no text in a field caption or text")


def _read_captions(csv: File, copies: LocalCopies, parameter: str) -> dict[str, str]:
    rows = _read_csv(csv, copies, ["video", "caption"], parameter)
    return dict(zip(rows["video"].str.strip(), rows["caption"].str.strip(), strict=True))


def _read_csv(csv: File, copies: LocalCopies, columns: list[str], parameter: str) -> pd.DataFrame:
    (path,) = copies.of([csv], parameter)
    name = csv if isinstance(csv, Path) else csv.url
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise SourceError(f"{name}: not a readable csv ({error}); save it as UTF-8 with commas") from None
    if missing := [column for column in columns if column not in rows]:
        raise SourceError(
            f"{name}: column {', '.join(missing)} is missing; the first line must name {', '.join(columns)}"
        )
    return rows

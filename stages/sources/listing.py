"""Sources of videos for `collect`: a folder, WebVid's csv, RealEstate10K's camera files; local or in a storage.

A source lists all videos that it names. A video whose file is missing is a row with a reason.
"""

import json
import logging
import posixpath
import unicodedata
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
BESIDE = (  # ends of names of files that lie beside videos and are none
    ".txt .json .csv .tsv .xml .yaml .yml .md .html .nfo .log .description .srt .vtt .ass .ssa .sub .idx .sbv .lrc "
    ".jpg .jpeg .png .webp .bmp .tif .tiff .wav .mp3 .m4a .aac .flac .opus .npy .npz .pt .pkl .parquet .part .ytdl"
).split()

logger = logging.getLogger(__name__)


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
    """Every file below a folder, apart from captions.csv and from what lies beside a video and is none.

    The names in captions.csv may differ from those on disk in Unicode form, case, slashes and a leading `./`. A video's
    caption is that of captions.csv; if that is blank or absent, of a file of its name beside it: the whole of
    `clip.txt`, or the field `caption` or `text` of `clip.json`.

    Args:
        folder: A path or a URL.
        parameter: That names it, for messages.

    Raises:
        SourceError: no such folder, or captions.csv is not a csv with the columns video and caption.
    """
    files = list_files(folder, parameter)
    csv = files.pop(CAPTIONS_FILE, None)
    captions = {} if csv is None else _names_on_disk(_read_captions(csv, copies, parameter), files)
    sidecars = _sidecars(files)
    left_out = _beside(files)
    if left_out:
        logger.warning("%s: files beside videos that are no videos, left out: %s", parameter, ", ".join(left_out))
    asked = [video for video in sidecars if not captions.get(video)]
    paths = dict(zip(asked, copies.of([files[sidecars[video]] for video in asked], parameter), strict=True))
    videos = []
    for name, file in files.items():
        if name in paths and name not in left_out:
            videos.append(_captioned(name, file, paths[name], sidecars[name]))
        elif name not in left_out:
            videos.append(SourceVideo(name, file, captions.get(name, "")))
    missing = captions.keys() - files.keys()
    return videos + [SourceVideo(name, caption=captions[name], reason=NOT_FOUND) for name in missing]


def list_webvid(source: WebVidParams, copies: LocalCopies) -> list[SourceVideo]:
    """WebVid's table (videoid, contentUrl, duration, page_dir, name): `<page_dir>/<videoid>.mp4` or `<videoid>.mp4`.

    Of several rows with one id, the last one counts whose file is there; of those, the last one with a caption.

    Raises:
        SourceError: the csv or the folder is missing, or a column is.
    """
    csv = find_file(source.csv, "collect.webvid.csv")
    rows = _read_csv(csv, copies, ["videoid", "page_dir", "name"], "collect.webvid.csv")
    found = list_files(source.videos, "collect.webvid.videos")
    listed: dict[str, SourceVideo] = {}
    for row in rows.itertuples():
        nested, flat = f"{row.page_dir.strip()}/{row.videoid}.mp4", f"{row.videoid}.mp4"
        name = nested if nested in found else flat
        file = found.get(name)
        video = SourceVideo(name, file, row.name.strip(), reason="" if file else NOT_FOUND)
        known = listed.get(row.videoid, video)
        if (file is not None, video.caption != "") >= (known.file is not None, known.caption != ""):
            listed[row.videoid] = video
    return list(listed.values())


def list_realestate10k(source: RealEstate10KParams, copies: LocalCopies) -> list[SourceVideo]:
    """RealEstate10K's camera files, see `models.curation.poses`.

    Each names the part of `<YouTube id>.mp4` between its first and its last frame, and gives the poses in it. Another
    container does as well, such as `<YouTube id>.webm`; of several `.mp4` counts, else the first by name.

    Raises:
        SourceError: one of the folders is missing.
    """
    parameter = "collect.realestate10k.cameras"
    cameras = {name: file for name, file in list_files(source.cameras, parameter).items() if name.endswith(".txt")}
    found = list_files(source.videos, "collect.realestate10k.videos")
    paths = copies.of(cameras.values(), parameter)
    videos = _by_stem(found)
    return [
        _realestate10k_video(name, file, path, videos)
        for (name, file), path in zip(cameras.items(), paths, strict=True)
    ]


def _realestate10k_video(name: str, camera: File, path: Path, videos: dict[str, File]) -> SourceVideo:
    try:
        address, poses = parse_camera_file(path.read_text(encoding="utf-8"))
        video = parse_qs(urlparse(address).query)["v"][0]
    except (OSError, ValueError) as error:
        return SourceVideo(name, reason=f"not a RealEstate10K camera file: {error}")
    except LookupError:
        return SourceVideo(name, reason="not a RealEstate10K camera file: line 1 is no address with v=<id>")
    start, end = float(poses.times[0]), float(poses.times[-1])
    if video not in videos:
        return SourceVideo(name, start=start, end=end, reason=f"{NOT_FOUND}: {video}.mp4")
    return SourceVideo(name, videos[video], start=start, end=end, poses=camera)


def _by_stem(found: dict[str, File]) -> dict[str, File]:
    """Videos right in the folder by their name without its end."""
    videos = [PurePosixPath(name) for name in found if "/" not in name]
    videos = [path for path in videos if path.suffix.lower() not in BESIDE]
    ordered = sorted(videos, key=lambda path: (path.suffix != ".mp4", path.name))
    return {path.stem: found[path.name] for path in reversed(ordered)}


def _sidecars(files: dict[str, File]) -> dict[str, str]:
    """The text that has the caption of each video, by name."""
    parts = [(name, *posixpath.splitext(name)) for name in files]
    texts: dict[str, dict[str, str]] = {}
    for name, stem, suffix in parts:
        if suffix.lower() in SIDECARS:
            texts.setdefault(stem, {})[suffix.lower()] = name
    return {
        name: texts[stem][min(texts[stem], key=SIDECARS.index)]
        for name, stem, suffix in parts
        if suffix.lower() not in SIDECARS and stem in texts
    }


def _beside(files: dict[str, File]) -> list[str]:
    """Files that are no videos and belong to a video in the same folder: `clip.srt`, `clip.info.json` of `clip.mp4`."""
    parts = [(name, *posixpath.splitext(name)) for name in files]
    videos = {stem for _, stem, suffix in parts if suffix.lower() not in BESIDE}
    return [
        name
        for name, _, suffix in parts
        if suffix.lower() in BESIDE
        and any(name[:end] in videos for end in range(name.rfind("/") + 2, len(name)) if name[end] == ".")
    ]


def _names_on_disk(captions: dict[str, str], files: dict[str, File]) -> dict[str, str]:
    """Captions by the names of the files; one that fits no file, or several, keeps its own name."""
    like: dict[str, list[str]] = {}
    for name in files:
        like.setdefault(_comparable(name), []).append(name)
    renamed: dict[str, str] = {}
    for name, caption in captions.items():
        fitting = like.get(_comparable(name), [])
        if name not in files and len(fitting) == 1:
            renamed[fitting[0]] = renamed.get(fitting[0]) or caption
        else:
            renamed[name] = caption
    return renamed


def _comparable(name: str) -> str:
    """Equal for names that differ in Unicode form, case, kind of slash and `./` alone."""
    return posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")).casefold())


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
    """Of several captions of one video the last one that is not blank."""
    rows = _read_csv(csv, copies, ["video", "caption"], parameter)
    captions: dict[str, str] = {}
    for video, caption in zip(rows["video"].str.strip(), rows["caption"].str.strip(), strict=True):
        captions[video] = caption or captions.get(video, "")
    return captions


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

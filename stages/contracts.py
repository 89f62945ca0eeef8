"""The data contracts of curation: what each stage writes and the next one may rely on, checked on writing and reading.

for clip in curated_clips("mixed", subset="train"):
    tracks = read_tracks(clip.tracks)           # tracks (T, N, 2), visibility (T, N)
    draws = read_draws(clip.draws)              # (draws, max_tracks) indices into N
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.curation.subset import Subset
from stages.items import ItemFolder, write_atomically
from stages.params import Split


class ContractError(ValueError):
    """A data file that is not what its contract says; the message names file, field and remedy."""


@dataclass(frozen=True)
class Table:
    """A parquet file: its columns, and rules that each give the rows (a boolean series) that break them."""

    name: str
    schema: pa.Schema
    rules: dict[str, Callable[[pd.DataFrame], pd.Series]]


def _column(name: str, kind: pa.DataType, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null)


_STRING, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

MANIFEST = Table(
    "manifest",
    pa.schema(
        [
            _column("video", _STRING),  # path relative to the source, as the user knows it
            _column("file", _STRING, null=True),  # name in data/videos/<split>; null if there is none
            _column("content", _STRING, null=True),  # SHA-256 of the file
            _column("caption", _STRING),  # empty if the source has none
            _column("start", _FLOAT, null=True),  # seconds of the file to use; null: all
            _column("end", _FLOAT, null=True),
            _column("truth", _STRING, null=True),  # name of the file with the true tracks of a synthetic video
            _column("poses", _STRING, null=True),  # name of the file with the camera's poses, if the source has one
            _column("reason", _STRING),  # why there is no file
        ]
    ),
    {
        "video must be unique": lambda rows: rows["video"].duplicated(),
        "file and content go together": lambda rows: rows["file"].isna() != rows["content"].isna(),
        "a video without file needs a reason": lambda rows: rows["file"].isna() & (rows["reason"] == ""),
    },
)

CLIPS = Table(
    "clips",
    pa.schema(
        [
            _column("video", _STRING),
            _column("clip_id", _STRING),
            _column("status", _STRING),
            _column("step", _STRING, null=True),  # that dropped it; null if it is kept
            _column("reason", _STRING),
            _column("subset", _STRING, null=True),  # train | eval; null if the video has no file
            _column("motion_score", _FLOAT, null=True),
            _column("scene_start", _INT, null=True),
            _column("scene_end", _INT, null=True),  # exclusive
            _column("first_frame", _INT, null=True),
            _column("interval", _INT, null=True),
            _column("width", _INT, null=True),  # of the source video, as displayed
            _column("height", _INT, null=True),
            _column("fps", _FLOAT, null=True),
            _column("frames", _INT, null=True),
            _column("bars_x", _INT, null=True),  # pixels of the source's width and height that black bars take
            _column("bars_y", _INT, null=True),
            _column("brightness", _FLOAT, null=True),  # these four: models/curation/quality.py
            _column("black", _FLOAT, null=True),
            _column("frozen", _FLOAT, null=True),
            _column("sharpness", _FLOAT, null=True),
            _column("camera", _STRING, null=True),  # class of its motion; this and the next five: camera.py
            _column("pan", _FLOAT, null=True),
            _column("zoom", _FLOAT, null=True),
            _column("roll", _FLOAT, null=True),
            _column("strength", _FLOAT, null=True),
            _column("object_share", _FLOAT, null=True),
        ]
    ),
    {
        "video must be unique": lambda rows: rows["video"].duplicated(),
        "status is kept or dropped": lambda rows: ~rows["status"].isin(["kept", "dropped"]),
        "a dropped video needs a step and a reason": lambda rows: (
            (rows["status"] == "dropped") & (rows["step"].isna() | (rows["reason"] == ""))
        ),
        "a kept video has no reason": lambda rows: (rows["status"] == "kept") & (rows["reason"] != ""),
        "a kept clip is unique": lambda rows: (
            rows["clip_id"].where(rows["status"] == "kept").dropna().duplicated().reindex(rows.index, fill_value=False)
        ),
        "a kept clip is measured": lambda rows: (
            (rows["status"] == "kept")
            & rows[["subset", "motion_score", "scene_start", "scene_end", "first_frame", "interval", "camera"]]
            .isna()
            .any(axis=1)
        ),
        "subset is train or eval": lambda rows: ~rows["subset"].isin(["train", "eval"]) & rows["subset"].notna(),
    },
)

CAPTIONS = Table(
    "captions",
    pa.schema(
        [
            _column("clip_id", _STRING),
            _column("caption", _STRING),
            _column("origin", _STRING),  # source: came with the video; none: there is none; else the model's name
        ]
    ),
    {
        "clip_id must be unique": lambda rows: rows["clip_id"].duplicated(),
        "a caption has text unless its origin is none": lambda rows: (
            (rows["caption"] == "") != (rows["origin"] == "none")
        ),
    },
)


def videos_folder(split: Split) -> Path:
    return Path("data/videos") / split


def clips_folder(split: Split) -> Path:
    return Path("data/clips") / split


def captions_file(split: Split) -> Path:
    return Path("data/captions") / f"{split}.parquet"


def poses_folder(split: Split) -> ItemFolder:
    return ItemFolder(clips_folder(split) / "poses", ".npz")


def tracks_folder(split: Split) -> ItemFolder:
    return ItemFolder(Path("data/tracks") / split, ".npz")


def draws_folder(split: Split) -> ItemFolder:
    return ItemFolder(Path("data/sparse_flows") / split, ".npz")


def read_manifest(split: Split) -> pd.DataFrame:
    return read_table(videos_folder(split) / "manifest.parquet", MANIFEST)


def read_clips(split: Split) -> pd.DataFrame:
    return read_table(clips_folder(split) / "clips.parquet", CLIPS)


def read_table(path: Path, table: Table) -> pd.DataFrame:
    """Read a parquet file that obeys `table`. Raises ContractError."""
    try:
        rows = pq.read_table(path)
    except FileNotFoundError:
        raise ContractError(f"{path}: no such file; run the stage that writes it (see dvc.yaml)") from None
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path}: not a parquet file: {error}; delete it and run its stage again") from None
    if missing := set(table.schema.names) - set(rows.column_names):
        raise ContractError(f"{path}: column {', '.join(sorted(missing))} is missing; run its stage again")
    frame = _to_frame(_conform(rows.select(table.schema.names), table, path))
    _check(frame, table, path)
    return frame


def write_table(path: Path, rows: list[dict], table: Table) -> None:
    """Write rows as parquet, in the order given; the same rows give the same bytes. Raises ContractError."""
    data = _conform(pa.Table.from_pylist(rows, _nullable(table.schema)), table, path)
    _check(_to_frame(data), table, path)
    buffer = io.BytesIO()
    pq.write_table(data, buffer)
    write_atomically(path, buffer.getvalue())


class Tracks(NamedTuple):
    """tracks: (T, N, 2) float32, pixels of the clip, x right, y down, pixel centres; visibility: (T, N) bool."""

    tracks: np.ndarray
    visibility: np.ndarray


def write_tracks(path: Path, tracks: np.ndarray, visibility: np.ndarray) -> None:
    """Raises ContractError if shapes or types differ from `Tracks`."""
    _check_tracks(path, tracks, visibility)
    _write_npz(path, tracks=tracks, visibility=visibility)


def read_tracks(path: Path) -> Tracks:
    """Raises ContractError if the file is missing, damaged or not `Tracks`."""
    data = _read_npz(path, "tracks", "visibility")
    _check_tracks(path, data["tracks"], data["visibility"])
    return Tracks(data["tracks"], data["visibility"])


class Poses(NamedTuple):
    """The camera at each frame of a clip; a frame whose pose is unknown has NaN in both.

    poses: (T, 3, 4) float64 world-to-camera; intrinsics: (T, 4) float64, fx fy cx cy as shares of the clip's width and
    height.
    """

    poses: np.ndarray
    intrinsics: np.ndarray


def write_poses(path: Path, poses: np.ndarray, intrinsics: np.ndarray) -> None:
    """Raises ContractError if shapes or types differ from `Poses`."""
    _check_poses(path, poses, intrinsics)
    _write_npz(path, poses=poses, intrinsics=intrinsics)


def read_poses(path: Path) -> Poses:
    """Raises ContractError if the file is missing, damaged or not `Poses`."""
    data = _read_npz(path, "poses", "intrinsics")
    _check_poses(path, data["poses"], data["intrinsics"])
    return Poses(data["poses"], data["intrinsics"])


def write_draws(path: Path, chosen: np.ndarray) -> None:
    """Raises ContractError, see `read_draws`."""
    _check_draws(path, chosen)
    _write_npz(path, chosen=chosen)


def read_draws(path: Path) -> np.ndarray:
    """Track indices (draws, max_tracks) int32 of each sparse draw, filled up with -1.

    Raises:
        ContractError: the file is missing, damaged or something else.
    """
    chosen = _read_npz(path, "chosen")["chosen"]
    _check_draws(path, chosen)
    return chosen


@dataclass(frozen=True)
class CuratedClip:
    """A kept clip and where its parts are: `video` mp4, `tracks` and `draws` npz. `caption` may be empty.

    `poses` npz: the camera's, if the source gives them.
    """

    clip_id: str
    subset: Subset
    caption: str
    video: Path
    tracks: Path
    draws: Path
    poses: Path | None


def curated_clips(split: Split, subset: Subset | None = None) -> list[CuratedClip]:
    """The kept clips of a split, in order of `clip_id`; with `subset` only those for training or for evaluation.

    Raises:
        ContractError: a table or a part of a clip is missing, or not what its contract says.
    """
    rows = read_clips(split)
    rows = rows[rows["status"] == "kept"].sort_values("clip_id")
    captions = read_table(captions_file(split), CAPTIONS).set_index("clip_id")["caption"]
    if missing := set(rows["clip_id"]) - set(captions.index):
        raise ContractError(f"{captions_file(split)}: no row for clip {min(missing)}; run the stage captions again")
    clips = [
        CuratedClip(
            clip_id=row.clip_id,
            subset=row.subset,
            caption=captions[row.clip_id],
            video=clips_folder(split) / f"{row.clip_id}.mp4",
            tracks=tracks_folder(split).path(row.clip_id),
            draws=draws_folder(split).path(row.clip_id),
            poses=poses_folder(split).path(row.clip_id) if poses_folder(split).has(row.clip_id) else None,
        )
        for row in rows.itertuples()
        if subset is None or row.subset == subset
    ]
    for clip in clips:
        for part in (clip.video, clip.tracks, clip.draws):
            if not part.exists():
                raise ContractError(f"{part}: missing; run the stage {part.parts[1]} again")
    return clips


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])


def _conform(data: pa.Table, table: Table, path: Path) -> pa.Table:
    for field in table.schema:
        if not field.nullable and data[field.name].null_count:
            raise ContractError(f"{path}: {field.name}: empty in {data[field.name].null_count} rows of {table.name}")
    try:
        return data.cast(table.schema)
    except (pa.ArrowInvalid, ValueError) as error:
        raise ContractError(f"{path}: {error}; run its stage again") from None


def _to_frame(data: pa.Table) -> pd.DataFrame:
    """Strings as str (null: None), whole numbers as Int64, so that null stays null."""
    return data.to_pandas(types_mapper={_INT: pd.Int64Dtype()}.get)


def _check(frame: pd.DataFrame, table: Table, path: Path) -> None:
    for rule, broken in table.rules.items():
        if (rows := frame[broken(frame)]).size:
            raise ContractError(f"{path}: {rule}; broken by {len(rows)} rows, first {rows.iloc[0].to_dict()}")


def _check_tracks(path: Path, tracks: np.ndarray, visibility: np.ndarray) -> None:
    if tracks.dtype != np.float32 or tracks.ndim != 3 or tracks.shape[-1] != 2 or not np.isfinite(tracks).all():
        raise ContractError(f"{path}: tracks must be finite (T, N, 2) float32, found {tracks.shape} {tracks.dtype}")
    if visibility.dtype != np.bool_ or visibility.shape != tracks.shape[:2]:
        raise ContractError(
            f"{path}: visibility must be {tracks.shape[:2]} bool, found {visibility.shape} {visibility.dtype}"
        )


def _check_poses(path: Path, poses: np.ndarray, intrinsics: np.ndarray) -> None:
    frames = len(poses)
    for name, array, shape in (("poses", poses, (frames, 3, 4)), ("intrinsics", intrinsics, (frames, 4))):
        if array.dtype != np.float64 or array.shape != shape:
            raise ContractError(f"{path}: {name} must be {shape} float64, found {array.shape} {array.dtype}")
    values = np.concatenate([poses.reshape(-1, 12), intrinsics], axis=1)
    if not (np.isfinite(values).all(1) | np.isnan(values).all(1)).all():
        raise ContractError(f"{path}: poses and intrinsics of a frame must be all finite or all NaN")


def _check_draws(path: Path, chosen: np.ndarray) -> None:
    if chosen.dtype != np.int32 or chosen.ndim != 2 or (chosen < -1).any():
        raise ContractError(
            f"{path}: chosen must be (draws, max_tracks) int32 >= -1, found {chosen.shape} {chosen.dtype}"
        )


def _write_npz(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as data:
            return {name: data[name] for name in names}
    except FileNotFoundError:
        raise ContractError(f"{path}: no such file; run the stage that writes it (see dvc.yaml)") from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ContractError(f"{path}: damaged: {error}; delete it and run its stage again") from None
    except KeyError as error:
        raise ContractError(f"{path}: {error.args[0]}; delete it and run its stage again") from None

"""Tables of curation as parquet files: their columns and rules, checked on writing and reading."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.curation.subset import SUBSETS
from models.errors import UserError
from stages.data.items import write_atomically
from stages.data.paths import clips_folder, shared_file, tracks_file, videos_folder
from stages.params import Split

RECIPE = "recipe"  # key in the metadata of a table
AT_ONCE = 10_000  # rows; as many are Python objects while a table is written; more takes memory


class ContractError(UserError):
    """A data file that breaks its contract. The message names file, field and remedy."""


@dataclass(frozen=True)
class Table:
    """A parquet file: its columns and its rules. A rule returns the rows that break it as a boolean series."""

    name: str
    schema: pa.Schema
    rules: dict[str, Callable[[pd.DataFrame], pd.Series]]


def _column(name: str, kind: pa.DataType, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null)


_STRING, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

MANIFEST = Table(
    "manifest",
    pa.schema(
        [
            _column("video", _STRING),  # path relative to the source, as the user knows it
            _column("file", _STRING, null=True),  # path; of a synthetic video, in its shard; null if there is none
            _column("content", _STRING, null=True),  # SHA-256 of the file
            _column("caption", _STRING),  # empty if the source has none
            _column("start", _FLOAT, null=True),  # seconds of the file to use; null: all
            _column("end", _FLOAT, null=True),
            _column("truth", _STRING, null=True),  # path of the true tracks of a synthetic video, in their shard
            _column("poses", _STRING, null=True),  # path of the camera's poses, in their shard, if the source has them
            _column("subset", _STRING, null=True),  # train | validation | test; null: decided by the content
            _column("reason", _STRING),  # why there is no file
        ]
    ),
    {
        "video must be unique": lambda rows: rows["video"].duplicated(),
        "file and content go together": lambda rows: rows["file"].isna() != rows["content"].isna(),
        "a video without file needs a reason": lambda rows: rows["file"].isna() & (rows["reason"] == ""),
        "subset is train, validation or test": lambda rows: ~rows["subset"].isin(SUBSETS) & rows["subset"].notna(),
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
            _column("subset", _STRING, null=True),  # train | validation | test; null if the video has no file
            _column("motion_score", _FLOAT, null=True),
            _column("scene_start", _INT, null=True),
            _column("scene_end", _INT, null=True),  # exclusive
            _column("first_frame", _INT, null=True),
            _column("interval", _INT, null=True),
            _column("width", _INT, null=True),  # of the source video, as displayed
            _column("height", _INT, null=True),
            _column("fps", _FLOAT, null=True),
            _column("frames", _INT, null=True),
            _column("clip_fps", _FLOAT, null=True),  # rate at which the clip plays at the source's speed
            _column("container", _STRING, null=True),  # this and the next nine: models/video/read.py, SourceFacts
            _column("codec", _STRING, null=True),
            _column("transfer", _STRING, null=True),
            _column("primaries", _STRING, null=True),
            _column("interlaced", _BOOL, null=True),
            _column("rotation", _INT, null=True),
            _column("mirrored", _BOOL, null=True),
            _column("pixel_aspect", _FLOAT, null=True),
            _column("video_streams", _INT, null=True),
            _column("start", _FLOAT, null=True),
            _column("even", _BOOL, null=True),  # the frames are evenly spaced in time; this and hold: pace.py
            _column("hold", _FLOAT, null=True),  # mean frames that a picture is shown for; 1: no frame is repeated
            _column("flaws", _INT, null=True),  # damaged parts that were cut out
            _column("treatment", _STRING, null=True),  # what was done about all that, in words
            _column("bars_x", _INT, null=True),  # pixels of the source's sides that bars or blurred fill take
            _column("bars_y", _INT, null=True),
            _column("brightness", _FLOAT, null=True),  # these four: models/curation/quality.py
            _column("black", _FLOAT, null=True),
            _column("frozen", _FLOAT, null=True),
            _column("sharpness", _FLOAT, null=True),
            _column("text_share", _FLOAT, null=True),  # models/curation/text.py; null where it is not looked for
            _column("camera", _STRING, null=True),  # class of its motion; this and the next five: camera.py
            _column("pan", _FLOAT, null=True),
            _column("zoom", _FLOAT, null=True),
            _column("roll", _FLOAT, null=True),
            _column("strength", _FLOAT, null=True),
            _column("object_share", _FLOAT, null=True),
        ]
    ),
    {
        "a scene of a video must be unique": lambda rows: rows[["video", "scene_start"]].duplicated(),
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
        "subset is train, validation or test": lambda rows: ~rows["subset"].isin(SUBSETS) & rows["subset"].notna(),
    },
)

SHARED = Table(
    "shared",
    pa.schema(
        [
            _column("video", _STRING),  # a scene of it is in `other`
            _column("other", _STRING),
            _column("share", _FLOAT),  # of the scene's frames that are in the other video
            _column("frame", _INT),  # of `video`, counted from the start of what is used of the file
            _column("other_frame", _INT),  # of `other`: the same picture
            _column("subset", _STRING),  # of both videos
        ]
    ),
    {"two different videos": lambda rows: rows["video"] == rows["other"]},
)

TRACKS = Table(
    "tracks",
    pa.schema(
        [
            _column("clip_id", _STRING),
            _column("status", _STRING),
            _column("reason", _STRING),
            _column("seen_first", _FLOAT),  # this and the next four: models/curation/track_facts.py
            _column("seen_middle", _FLOAT),
            _column("seen_last", _FLOAT),
            _column("round_trip", _FLOAT, null=True),
            _column("own_motion", _FLOAT, null=True),
        ]
    ),
    {
        "clip_id must be unique": lambda rows: rows["clip_id"].duplicated(),
        "a clip is kept, or dropped with a reason": lambda rows: (
            ((rows["status"] != "kept") | (rows["reason"] != ""))
            & ((rows["status"] != "dropped") | (rows["reason"] == ""))
        ),
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


def read_manifest(split: Split) -> pd.DataFrame:
    return read_table(videos_folder(split) / "manifest.parquet", MANIFEST)


def read_clips(split: Split) -> pd.DataFrame:
    return read_table(clips_folder(split) / "clips.parquet", CLIPS)


def read_shared(split: Split) -> pd.DataFrame:
    return read_table(shared_file(split), SHARED)


def read_track_facts(split: Split) -> pd.DataFrame:
    return read_table(tracks_file(split), TRACKS)


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


class SaveNow:
    """When to write a growing table, so that a stop loses little and the writing costs little.

    The time of a writing grows with the table. So the results between two writings grow with it too: they are `SHARE`
    of its rows, but at least `least`.
    """

    SHARE = 0.05

    def __init__(self, least: int):
        self.least, self.results = least, 0

    def __call__(self, rows: int) -> bool:
        """Whether to write now that one more result has come. `rows`: the present length of the table."""
        self.results += 1
        if self.results < max(self.least, self.SHARE * rows):
            return False
        self.results = 0
        return True


def recipe_of_table(path: Path) -> str | None:
    """The recipe of a table's rows; None if there is no table or no recipe in it."""
    if not path.exists():
        return None
    return (pq.read_schema(path).metadata or {}).get(RECIPE.encode(), b"").decode() or None


def write_table(path: Path, rows: Iterable[dict[str, Any]], table: Table, recipe: str = "") -> None:
    """Write rows as parquet, in the order given; the same rows give the same bytes. Raises ContractError.

    Args:
        rows: taken one after the other, so a generator of them needs little memory.
        recipe: how the rows were made, for a stage that reuses rows of its last run.
    """
    schema, waiting = _nullable(table.schema), iter(rows)
    parts = [schema.empty_table()]
    while part := list(islice(waiting, AT_ONCE)):
        parts.append(pa.Table.from_pylist(part, schema))
    data = _conform(pa.concat_tables(parts).combine_chunks(), table, path)
    _check(_to_frame(data), table, path)
    buffer = io.BytesIO()
    pq.write_table(data.replace_schema_metadata({RECIPE: recipe} if recipe else None), buffer)
    write_atomically(path, buffer.getvalue())


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

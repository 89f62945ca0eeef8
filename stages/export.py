"""Hand the curated set to others: `image-conductor export --format webdataset|parquet|hf --output FOLDER`.

Each clip goes with its caption, tracks, camera poses (where the source has them) and all facts of clips.parquet and
tracks.parquet. `webdataset` are tar files, `parquet` tables, `hf` tables in the layout that `datasets.load_dataset`
reads from a folder, with one configuration for each split of curation.
"""

import argparse
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.curation.subset import SUBSETS, Subset
from models.errors import UserError
from stages.data.arrays import read_poses, read_tracks
from stages.data.curated import CuratedClip, curated_clips
from stages.data.items import temporary_file
from stages.data.shards import read_item
from stages.data.tables import CLIPS, TRACKS, read_clips, read_track_facts
from stages.params import SPLITS, Split
from stages.run.command import one_line_errors

Format = Literal["webdataset", "parquet", "hf"]
PER_FILE = 500  # clips of a file; more, fewer and larger files
PER_GROUP = 16  # clips of a row group of a table; more needs more memory
_OF_BOTH = ("clip_id", "status", "reason")  # columns of tracks.parquet that clips.parquet has too
_NOT_FACTS = (*_OF_BOTH, "step", "subset")

_FACTS = {
    field.name: pa.field(field.name, field.type)
    for table in (CLIPS, TRACKS)
    for field in table.schema
    if field.name not in _NOT_FACTS
} | {"source_video": pa.field("source_video", pa.string())}
del _FACTS["video"]  # the name of the source; `video` is the clip


class ExportedClip(NamedTuple):
    """A curated clip with all that goes with it. facts: plain values by the names of their columns."""

    split: Split
    clip: CuratedClip
    facts: dict[str, Any]


def export_clips(output: Path, how: Format, splits: Sequence[Split] = SPLITS, per_file: int = PER_FILE) -> int:
    """Write the curated clips of some splits; return how many.

    Raises:
        UserError: the folder is not empty, or there is no clip.
        ContractError: a part of a clip is missing.
    """
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise UserError(f"--output: {output} exists and is not empty; give a new folder")
    count = 0
    for split in splits:
        facts = _facts(split)
        for subset in SUBSETS:
            clips = [ExportedClip(split, clip, facts[clip.clip_id]) for clip in curated_clips(split, subset)]
            for number, part in enumerate(_parts(clips, per_file)):
                path = output / _name(how, split, subset, number)
                _atomically(path, partial(_write_tar if how == "webdataset" else _write_table, clips=part))
            count += len(clips)
    if not count:
        raise UserError(f"data/clips: no curated clips in {', '.join(splits)}; see reports/curation/index.html")
    if how == "hf":
        _atomically(output / "README.md", lambda file: file.write_text(_card(output, splits), encoding="utf-8"))
    return count


def _facts(split: Split) -> dict[str, dict[str, Any]]:
    """For each clip its facts, missing ones as None."""
    judged = read_track_facts(split).drop(columns=["status", "reason"])
    rows = read_clips(split).query("status == 'kept'").merge(judged, on="clip_id", how="left")
    rows = rows.rename(columns={"video": "source_video"}).drop(columns=["status", "reason", "step", "subset"])
    rows = rows.astype(object).where(rows.notna(), None).set_index("clip_id")
    return {str(clip_id): {str(k): _plain(v) for k, v in row.items()} for clip_id, row in rows.to_dict("index").items()}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else None if value is pd.NA else value


def _write_tar(path: Path, clips: Sequence[ExportedClip]) -> None:
    """Members of a clip share its id: .mp4, .txt (caption), .json (facts), .tracks.npz and, if there, .poses.npz."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for split, clip, facts in clips:
            named = {"split": split, "subset": clip.subset, "clip_id": clip.clip_id} | facts
            members = {"mp4": read_item(clip.video), "txt": clip.caption.encode()}
            members |= {"json": json.dumps(named).encode(), "tracks.npz": read_item(clip.tracks)}
            if clip.poses:
                members["poses.npz"] = read_item(clip.poses)
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{clip.clip_id}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def _write_table(path: Path, clips: Sequence[ExportedClip]) -> None:
    """One row for each clip; `video` is bytes and name, as the feature `Video` of `datasets` stores it."""
    floats = pa.list_(pa.list_(pa.float32()))
    schema = pa.schema(
        [
            pa.field("clip_id", pa.string()),
            pa.field("split", pa.string()),
            pa.field("subset", pa.string()),
            pa.field("caption", pa.string()),
            pa.field("video", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
            pa.field("tracks", pa.list_(floats)),  # (T, N, 2) pixels of the clip
            pa.field("visibility", pa.list_(pa.list_(pa.bool_()))),  # (T, N)
            pa.field("poses", pa.list_(pa.list_(pa.list_(pa.float64())))),  # (T, 3, 4) world-to-camera, or null
            pa.field("intrinsics", pa.list_(pa.list_(pa.float64()))),  # (T, 4) fx fy cx cy, or null
            *_FACTS.values(),
        ],
        {"huggingface": json.dumps({"info": {"features": {"video": {"_type": "Video"}}}})},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for part in _parts(clips, PER_GROUP):
            writer.write_table(pa.Table.from_pylist([_row(clip) for clip in part], schema))


def _row(exported: ExportedClip) -> dict[str, Any]:
    split, clip, facts = exported
    tracks = read_tracks(clip.tracks)
    poses = read_poses(clip.poses) if clip.poses else None
    return {
        "clip_id": clip.clip_id,
        "split": split,
        "subset": clip.subset,
        "caption": clip.caption,
        "video": {"bytes": read_item(clip.video), "path": clip.video.name},
        "tracks": tracks.tracks.tolist(),
        "visibility": tracks.visibility.tolist(),
        "poses": poses and poses.poses.tolist(),
        "intrinsics": poses and poses.intrinsics.tolist(),
    } | facts


def _name(how: Format, split: Split, subset: Subset, number: int) -> str:
    if how == "webdataset":
        return f"{split}-{subset}-{number:06d}.tar"
    return f"{'data/' if how == 'hf' else ''}{split}/{subset}-{number:05d}.parquet"


def _card(output: Path, splits: Sequence[Split]) -> str:
    """The dataset card, whose head tells `datasets` which files are which."""
    lines = ["---", "configs:"]
    for split in splits:
        there = [subset for subset in SUBSETS if any(output.glob(f"data/{split}/{subset}-*.parquet"))]
        if there:
            lines += [f"- config_name: {split}", "  data_files:"]
            lines += [f"  - split: {subset}\n    path: data/{split}/{subset}-*.parquet" for subset in there]
    return "\n".join([*lines, "---", "", "# Curated clips", "", __doc__ or "", ""])


def _parts(items: Sequence[ExportedClip], size: int) -> Iterator[list[ExportedClip]]:
    waiting = iter(items)
    while part := list(islice(waiting, size)):
        yield part


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    with temporary_file(path.parent, path.name) as temporary:
        write(temporary)
        os.replace(temporary, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says. `arguments`: None takes the process's own."""
    parser = argparse.ArgumentParser(prog="image-conductor export", description=__doc__)
    parser.add_argument("--format", choices=get_args(Format), required=True, help="of the files")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--split", choices=SPLITS, nargs="+", default=SPLITS, help="splits of curation; default: both")
    parser.add_argument(
        "--per-file", type=_at_least_one, default=PER_FILE, help="clips of a file; default: %(default)s"
    )
    options = parser.parse_args(arguments)
    with one_line_errors("export"):
        count = export_clips(options.output, options.format, options.split, options.per_file)
        print(f"{options.output}: {count} clips")


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    main()

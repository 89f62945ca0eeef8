"""Raw videos -> clips (Sec 2.2, steps 2 to 4): data/clips/<split> with clips.parquet, one row per raw video.

    python -m stages.clips --split mixed

Beside the table are folders of items. `videos` has every clip that was made, <clip_id>.mp4. `measured` has a file for
each raw video, with an entry for each of its clips. Where the source gives the camera's poses, `poses` has those of a
clip's frames. Which clips are kept depends on the whole split and on thresholds, and only the table says it. So when
videos or thresholds change, no clip is made again.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.curation import clip, poses
from models.curation.clip import ClipSettings, Scenes
from models.curation.outcome import Clip, Dropped, Facts
from models.curation.selection import Reasons, Rules, Source, class_of, select
from models.curation.shared_footage import Shared, deciding_contents
from models.curation.subset import Subset, subset_of
from models.estimators import load_estimator
from models.video import write
from stages.curation.comparisons import find_near_duplicates, shared_footage
from stages.data.arrays import write_poses
from stages.data.items import by_content, content_hash, item_id, recipe, write_atomically
from stages.data.measures import MeasuredClip, read_measures, write_measures
from stages.data.paths import clip_videos, clips_folder, measures_folder, poses_folder, shared_file
from stages.data.shards import ShardedItems, as_file, is_there, read_item
from stages.data.tables import CLIPS, SHARED, ContractError, read_manifest, write_table
from stages.params import ClipsParams, Params, Split
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items


@dataclass(frozen=True)
class ClipJob:
    """One content to make clips of, with the parameters that shape them."""

    item: str
    content: str
    file: Path
    poses: Path | None
    span: tuple[float, float] | None
    folders: "Folders"
    settings: ClipSettings
    scenes: Scenes
    fps: float
    cuts: str
    flow: str
    flow_options: dict[str, Any]
    text: str
    seed: int


class Folders(NamedTuple):
    """What is written item by item: the clips, their cameras' poses, and what was measured of each raw video."""

    videos: ShardedItems
    posed: ShardedItems
    measured: ShardedItems


def run(split: Split, params: Params) -> None:
    folder, manifest = clips_folder(split), read_manifest(split)
    folders = Folders(clip_videos(split), poses_folder(split), measures_folder(split))
    videos, posed, measured = folders
    made_by = _recipe(params)
    manifest["item"] = [
        item_id(made_by, row.content or row.video, row.start, row.end, row.poses and Path(row.poses).stem)
        for row in _rows(manifest)
    ]
    listed = list(_rows(manifest))
    items = {row.item: row for row in listed if row.file}
    _remove_older_layout(folder)
    measured.prepare(items, made_by)
    known = read_measures(measured, items)
    made_before = [entry.clip_id for of_video in known.values() for entry in of_video if not entry.dropped]
    lost = {*videos.prepare(made_before, made_by)}
    lost_poses = {*posed.prepare(made_before, made_by)}
    missing = [
        item
        for item, row in items.items()
        if item not in known
        or any(e.clip_id in lost or (row.poses and e.clip_id in lost_poses) for e in known[item] if not e.dropped)
    ]
    neural, sharing = params.is_neural("flow"), params.compute.processes_per_gpu  # most of the work is the CPU's
    jobs = [_job(items[item], params, folders) for item in missing]
    _check_sources([job.file for job in jobs], split)
    failed = dict(map_items(make_clips, jobs, params.compute, f"clips@{split}", _crashed, neural, sharing))
    known |= read_measures(measured, missing)
    known |= {item: [MeasuredClip(item, Facts(), ("decode", reason))] for item, reason in failed.items() if reason}
    found = {item: known[item] for item in items}
    entries = {entry.clip_id: entry for of_video in found.values() for entry in of_video}
    made = {clip_id: entry.facts for clip_id, entry in entries.items() if not entry.dropped}
    reasons: Reasons = {clip_id: entry.dropped for clip_id, entry in entries.items() if entry.dropped}
    sources = {
        entry.clip_id: Source(row.video, row.content) for row in reversed(listed) for entry in found.get(row.item, [])
    }
    rules = _rules(split, params)
    unwanted = select(made, sources, rules, partial(find_near_duplicates, split))
    videos.pack(made)
    posed.pack(made)
    measured.pack(items)
    given = {row.content: row.subset for row in listed if row.content}
    pairs = [pair for pair in shared_footage(split, listed, found) if given[pair.video] == given[pair.other]]
    decides = deciding_contents(given, pairs)
    subsets = {content: given[content] or _subset(decisive, params.clips) for content, decisive in decides.items()}
    write_table(shared_file(split), _table_of_shared(pairs, listed, subsets), SHARED)
    write_table(folder / "clips.parquet", _table(listed, found, reasons | unwanted, rules, subsets), CLIPS)


def _job(row: Any, params: Params, folders: Folders) -> ClipJob:
    return ClipJob(
        row.item,
        row.content,
        Path(row.file),
        Path(row.poses) if row.poses else None,
        None if row.start is None else (row.start, row.end),
        folders,
        _settings(params),
        params.clips.scenes,
        params.video.fps,
        params.clips.cuts,
        params.clips.flow,
        params.clips.flow_options(),
        params.clips.text,
        params.clips.seed,
    )


def make_clips(item: ClipJob) -> tuple[str, str]:
    """Write a video's clips and their poses, if there are any, then what was measured: it says that all are whole.

    Returns:
        The item's name, and why nothing was measured, "" if it was. What was not measured is tried again.
    """
    try:
        with as_file(item.file, item.folders.videos.folder) as file:
            if content_hash(file) != item.content:
                return item.item, "it changed after collect had read it; run collect again"
            return _make(item, file)
    except FileNotFoundError:
        return item.item, "it was removed after collect had read it; run collect again"


def _make(item: ClipJob, file: Path) -> tuple[str, str]:
    seed = _seed(item)
    results = clip.curate_scenes(
        file,
        item.settings,
        load_estimator("cuts", item.cuts),
        load_estimator("flow", item.flow, **item.flow_options),
        lambda scene: np.random.default_rng(seed if item.scenes == "longest" else [*seed, scene]),
        item.scenes,
        item.span,
        None if item.text == "none" else load_estimator("text", item.text),
    )
    named = {}
    for result in results:
        clip_id = item.item if item.scenes == "longest" else item_id(item.item, result.facts.scene_start)
        named[clip_id] = result
        if isinstance(result, Clip):
            data = write.encode_mp4(result.frames, result.fps or item.fps)
            write_atomically(item.folders.videos.path(clip_id), data, lasting=False)
            if item.poses:
                _, path = poses.parse_camera_file(read_item(item.poses).decode())
                write_poses(item.folders.posed.path(clip_id), *poses.poses_at(path, result.times, result.view))
    write_measures(
        item.folders.measured.path(item.item),
        [
            MeasuredClip(clip_id, result.facts, (result.step, result.reason) if isinstance(result, Dropped) else None)
            for clip_id, result in named.items()
        ],
    )
    return item.item, ""


def _seed(item: ClipJob) -> list[int]:
    """Another one for each part of a file that the source names, so that parts of one film differ in their draws."""
    seed = [item.seed, int(item.content[:16], 16)]
    if item.span is None:
        return seed
    return [*seed, int.from_bytes(hashlib.sha256(repr(item.span).encode()).digest()[:8], "big")]


def _crashed(item: ClipJob) -> tuple[str, str]:
    """Nothing is written: perhaps memory was short this time. The video is dropped from this table and tried again."""
    return item.item, "reading it crashed or hung the decoder, or needed too much memory; the next run tries again"


def _table(
    listed: list[Any],
    found: dict[str, list[MeasuredClip]],
    reasons: Reasons,
    rules: Rules,
    subsets: Mapping[str, Subset],
) -> Iterator[dict[str, Any]]:
    """One row for each clip, and one for each video that has none. subsets: of each content."""
    first_with: dict[str, str] = {}
    for row in listed:
        for entry in found.get(row.item) or [MeasuredClip(row.item, Facts())]:
            step, reason = reasons.get(entry.clip_id, (None, "")) if row.file else ("collect", row.reason)
            if not reason and entry.clip_id in first_with:
                step, reason = "duplicate", f"same content as {first_with[entry.clip_id]}"
            first_with.setdefault(entry.clip_id, row.video)
            hidden = ("signature", "footage")
            measures = {name: value for name, value in vars(entry.facts).items() if name not in hidden}
            measured = entry.facts.motion_score is not None
            yield (
                measures
                | {"video": row.video, "clip_id": entry.clip_id, "status": "dropped" if reason else "kept"}
                | {"step": step, "reason": reason, "camera": class_of(entry.facts, rules) if measured else None}
                | {"subset": subsets[row.content] if row.content else None}
            )


def _subset(content: str, settings: ClipsParams) -> Subset:
    return subset_of(content, settings.held_out, settings.validation)


def _table_of_shared(pairs: list[Shared], listed: list[Any], subsets: Mapping[str, Subset]) -> list[dict[str, Any]]:
    """One row for each pair, with the subset on which both are. subsets: of each content."""
    videos = {row.content: row.video for row in reversed(listed)}
    named = [(pair._replace(video=videos[pair.video], other=videos[pair.other]), subsets[pair.video]) for pair in pairs]
    return [pair._asdict() | {"subset": subset} for pair, subset in sorted(named)]


def _check_sources(files: list[Path], split: Split) -> None:
    """Raises ContractError if videos are gone: a disk that is not mounted must not empty the data set."""
    if gone := [file for file in files if not is_there(file)]:
        raise ContractError(
            f"{gone[0]}: no such file, though collect found it; {len(gone)} videos are missing: bring them back, "
            f"or run python -m stages.collect --split {split}"
        )


def _settings(params: Params) -> ClipSettings:
    size = params.video.width, params.video.height
    settings = params.clips
    return ClipSettings(size, params.video.clip_frames, settings.interval, settings.margin, settings.crop_bars)


def _rules(split: Split, params: Params) -> Rules:
    settings, camera_rules = params.clips, params.clips.camera
    return Rules(
        **settings.quality.model_dump(),
        near_duplicates=settings.near_duplicates,
        static_below=camera_rules.static_below,
        camera_classes=camera_rules.classes[split],
        max_object_share=camera_rules.max_object_share[split],
        max_class_share=camera_rules.max_class_share[split],
        drop_share=settings.drop_share[split],
    )


def _recipe(params: Params) -> str:
    settings = params.clips
    return recipe(
        code_of(make_clips, params),
        clips=settings.model_dump(include={"seed", "cuts", "scenes", "margin", "crop_bars", "interval", "text"}),
        flow=[settings.flow, by_content(settings.flow_options())],
        video=params.video.model_dump(include={"width", "height", "clip_frames", "fps"}),
    )


def _remove_older_layout(folder: Path) -> None:
    """Delete what versions left that had one file for each clip; the clips are made again."""
    for path in folder.glob("*.mp4"):
        path.unlink()
    shutil.rmtree(folder / "dropped", ignore_errors=True)


def _rows(manifest: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples, missing values as None."""
    return manifest.astype(object).where(manifest.notna(), None).itertuples(index=False)


if __name__ == "__main__":
    run_stage("stages.clips")

"""Raw videos of one split (Sec 2.2, step 1): data/videos/<split>/manifest.parquet has a row for each.

    python -m stages.collect --split mixed

A local video stays where it is. One from a storage is fetched into `.cache/videos/<split>`. The manifest has its path
and its content's hash. What this stage makes itself lies in shards beside the manifest: synthetic videos in `drawn`,
their true tracks in `truth`, cameras' poses in `poses`.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models import geometry
from models.curation.subset import Subset, subset_of
from models.disk import disk_fault
from models.pictures.album import content_of_album
from models.pixels import to_uint8
from models.video import write
from stages.data.arrays import write_tracks
from stages.data.items import content_hash, item_id, recipe, remove_leftovers, write_atomically
from stages.data.paths import drawn_videos, fetched_folder, source_poses, true_tracks_folder, videos_folder
from stages.data.shards import ShardedItems, read_item
from stages.data.tables import MANIFEST, ContractError, read_manifest, write_table
from stages.params import ClipsParams, Params, Split, SyntheticParams
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items
from stages.sources.known import read_known, state_of, write_known
from stages.sources.listing import NOT_FOUND, SourceVideo, list_folder, list_realestate10k, list_webvid
from stages.sources.storage import RECORDS, File, LocalCopies, RemoteFile, SourceError, keep_only, stays, take_in

if TYPE_CHECKING:
    from models import scenes
    from models.worlds import World

SEEDS_PER_SPLIT = 500_000  # video i of mixed takes seed collect.seed * 1_000_000 + i, camera 500_000 more
TRUTH_GRID = 16
BY_CONTENT = "named by content"  # the recipe of files that are copied as they are


@dataclass(frozen=True)
class SceneJob:
    """One synthetic video, where it and its true tracks are, and whether they have to be drawn.

    subset: whose pictures it shows, in the world of pictures; None in the procedural one.
    """

    kind: "scenes.Kind"
    seed: int
    frames: int
    subset: Subset | None
    settings: SyntheticParams
    video: Path
    truth: Path
    missing: bool = True


@dataclass(frozen=True)
class TakeJob:
    """One file of a source to take in; `folder` is for those that cannot stay where they are."""

    file: File
    folder: Path


class Taken(NamedTuple):
    """Where a source's file can be read, and the SHA-256 of its content; or the reason why it cannot."""

    file: File
    path: str = ""
    content: str = ""
    reason: str = ""


def run(split: Split, params: Params) -> None:
    folder = videos_folder(split)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if params.collect.source_of(split) == "synthetic":
        rows = _draw(split, params)
        keep_only(fetched_folder(split), set(), set())
    else:
        rows = _take(split, params)
    used = {os.path.dirname(row[part]) for row in rows for part in ("file", "truth", "poses") if row[part]}
    _remove_all_but(folder, {folder / "manifest.parquet", *map(Path, used)})
    write_table(folder / "manifest.parquet", sorted(rows, key=lambda row: row["video"]), MANIFEST)


def _draw(split: Split, params: Params) -> list[dict[str, Any]]:
    """Draw the synthetic videos that are not there; the rows of all. One that the last table has is not read again."""
    videos, truth = drawn_videos(split), true_tracks_folder(split)
    made_by, plan = plan_scenes(split, params)
    names = [job.video.stem for job in plan]
    missing = {*videos.prepare(names, made_by), *truth.prepare(names, made_by)}
    known = {row["file"]: row for row in _last_rows(split)}
    plan = [replace(job, missing=job.video.stem in missing) for job in plan]
    settled = [known[str(job.video)] for job in plan if not job.missing and str(job.video) in known]
    jobs = [job for job in plan if job.missing or str(job.video) not in known]
    rows = [*settled, *map_items(draw_video, jobs, params.compute, f"collect@{split}", _crashed_scene)]
    videos.pack(names)
    truth.pack(names)
    return rows


def _last_rows(split: Split) -> list[dict[str, Any]]:
    try:
        rows = read_manifest(split).astype(object)
    except ContractError:
        return []
    return rows.where(rows.notna(), None).to_dict("records")


def _take(split: Split, params: Params) -> list[dict[str, Any]]:
    """Take in the videos and poses of a source; their rows. A local file that is known and unchanged is not read."""
    folder, poses = fetched_folder(split), source_poses(split)
    for place in (folder, folder / RECORDS):
        remove_leftovers(place)
    copies = LocalCopies(folder)
    sources = _list_source(split, params, copies)
    files = dict.fromkeys(file for source in sources for file in (source.file, source.poses) if file is not None)
    states = {file: state_of(file) for file in files if isinstance(file, Path) and stays(file)}
    known = read_known(split)
    taken: dict[File, Taken] = {
        file: Taken(file, str(file), known[state]) for file, state in states.items() if state in known
    }
    jobs = [TakeJob(file, folder) for file in files if file not in taken]
    read = map_items(take_file, jobs, params.compute, f"collect@{split}", _crashed_file)
    taken |= {each.file: each for each in read}
    contents = [(state, taken[file].content) for file, state in states.items()]
    write_known(split, [(state, content) for state, content in contents if state and content])
    _copy_poses(poses, [taken[source.poses] for source in sources if source.poses is not None])
    keep_only(folder, {os.path.basename(each.path) for each in taken.values()}, copies.fetched | _remote(files))
    return [_row_of(source, taken, poses) for source in sources]


def _remote(files: Iterable[File]) -> set[RemoteFile]:
    return {file for file in files if isinstance(file, RemoteFile)}


def _copy_poses(poses: ShardedItems, taken: list[Taken]) -> None:
    paths = {each.content: Path(each.path) for each in taken if each.content}
    if not paths:
        return
    for content in poses.prepare(paths, BY_CONTENT):
        write_atomically(poses.path(content), paths[content].read_bytes(), lasting=False)
    poses.pack(paths)


def _remove_all_but(folder: Path, used: set[Path]) -> None:
    """Delete what another source, or an older version, left in the folder."""
    for path in folder.iterdir():
        if path not in used:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def plan_scenes(split: Split, params: Params) -> tuple[str, list[SceneJob]]:
    """The recipe of synthetic videos, and what to draw.

    That is camera-only scenes for `camera`; for `mixed` moving objects, in a share of the videos under a moving camera.
    In the world of pictures, each video shows pictures of one of the album's subsets. The shares of videos for test and
    validation are those of `clips`, so no picture is on two sides.

    Raises:
        AlbumError: there is no album of pictures.
        SourceError: more videos, or a higher collect.seed, than there are seeds.
    """
    from models import scenes

    settings, seed = params.collect.synthetic, params.collect.seed
    count = getattr(settings, split)
    if count > SEEDS_PER_SPLIT or (seed + 1) * 2 * SEEDS_PER_SPLIT > scenes.PRETRAIN_SEEDS:
        raise SourceError(
            f"params.yaml: collect.synthetic.{split} must not exceed {SEEDS_PER_SPLIT}, and collect.seed must stay "
            f"below {scenes.PRETRAIN_SEEDS // (2 * SEEDS_PER_SPLIT)}, or training would meet other stages' scenes"
        )
    first = seed * 2 * SEEDS_PER_SPLIT + (SEEDS_PER_SPLIT if split == "camera" else 0)
    shaping: list[Any] = [settings.width, settings.height, settings.fps, settings.movers]
    if settings.world == "pictures":
        shaping.append(content_of_album(settings.pictures))
    made_by = recipe(code_of(draw_video), settings=shaping)
    low, high = settings.frames
    plan = []
    for index in range(count):
        kind, number = _kind(split, index, settings.moving_camera), first + index
        frames = int(np.random.default_rng([number, 1]).integers(low, high + 1))
        subset = _subset(number, params.clips) if settings.world == "pictures" else None
        name = item_id(made_by, kind, number, frames, subset)
        paths = drawn_videos(split).path(name), true_tracks_folder(split).path(name)
        plan.append(SceneJob(kind, number, frames, subset, settings, *paths))
    return made_by, plan


def _kind(split: Split, index: int, moving_camera: float) -> "scenes.Kind":
    """Of video `index`; the videos under a moving camera are spread evenly through the mixed ones."""
    if split == "camera":
        return "camera"
    return "mixed" if int((index + 1) * moving_camera) > int(index * moving_camera) else "object"


def _subset(number: int, shares: ClipsParams) -> Subset:
    return subset_of(hashlib.sha256(str(number).encode()).hexdigest(), shares.held_out, shares.validation)


def draw_video(item: SceneJob) -> dict[str, Any]:
    """Render a scene and its true tracks, unless they are there; return its row of the manifest."""
    import torch

    settings = item.settings
    width, height, world = settings.width, settings.height, _world(settings.pictures, item.subset)
    scene = world.sample([item.kind], item.frames, [item.seed], height, settings.movers)
    if item.missing:
        points = torch.from_numpy(geometry.point_grid(width, height, TRUTH_GRID))
        tracks, visibility = world.true_tracks(scene, points[None], width, height)
        write_tracks(item.truth, tracks[0].numpy(), visibility[0].numpy())
        frames = to_uint8(world.render(scene, width, height)[0])
        write_atomically(item.video, write.encode_mp4(frames, settings.fps), lasting=False)
    content = hashlib.sha256(read_item(item.video)).hexdigest()
    facts = {"file": str(item.video), "content": content, "truth": str(item.truth), "subset": item.subset}
    return _row(f"{item.kind}-{item.seed}.mp4", caption=world.captions(scene)[0], **facts)


@cache
def _world(pictures: str, subset: Subset | None) -> "World":
    """The world of a subset's pictures; None: the procedural one."""
    from models import worlds

    return worlds.procedural_world() if subset is None else worlds.picture_world(pictures, subset)


def take_file(job: TakeJob) -> Taken:
    """Find a file's content. A local file stays where it is; another is copied or fetched.

    Raises:
        SourceError: the storage that it lies in fails.
    """
    file = job.file
    try:
        if isinstance(file, Path) and stays(file):
            return Taken(file, str(file), content_hash(file))
        path = take_in(file, job.folder)
    except FileNotFoundError:
        return Taken(file, reason=NOT_FOUND)
    except OSError as error:
        if disk_fault(error):  # of this machine; the video is not at fault
            raise
        return Taken(file, reason=f"cannot be read: {error.strerror or error}")
    return Taken(file, str(path), path.stem)


def _row_of(source: SourceVideo, taken: dict[File, Taken], poses: ShardedItems) -> dict[str, Any]:
    facts: dict[str, Any] = {"caption": source.caption, "start": source.start, "end": source.end}
    if source.file is None:
        return _row(source.video, reason=source.reason, **facts)
    parts = [taken[file] for file in (source.file, source.poses) if file is not None]
    if reason := next((part.reason for part in parts if part.reason), ""):
        return _row(source.video, reason=reason, **facts)
    if source.poses is not None:
        facts["poses"] = str(poses.path(taken[source.poses].content))
    return _row(source.video, file=parts[0].path, content=parts[0].content, **facts)


def _row(name: str, **facts: object) -> dict[str, Any]:
    empty = {"caption": "", "start": None, "end": None, "truth": None, "poses": None, "subset": None, "reason": ""}
    return {"video": name, "file": None, "content": None} | empty | facts


def _list_source(split: Split, params: Params, copies: LocalCopies) -> list[SourceVideo]:
    collect = params.collect
    match collect.source_of(split):
        case "folder":
            return list_folder(collect.folder[split], copies, f"collect.folder.{split}")
        case "webvid":
            return list_webvid(collect.webvid, copies)
        case _:
            return list_realestate10k(collect.realestate10k, copies)


def _crashed_scene(item: SceneJob) -> dict[str, Any]:
    return _row(f"{item.kind}-{item.seed}.mp4", reason="drawing it crashed")


def _crashed_file(job: TakeJob) -> Taken:
    return Taken(job.file, reason="reading it crashed")


if __name__ == "__main__":
    run_stage("stages.collect")

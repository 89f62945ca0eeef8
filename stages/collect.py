"""Raw videos of one split (Sec 2.2, step 1) -> data/videos/<split>/ with manifest.parquet.

    python -m stages.collect --split mixed

Files are named by content or, if synthetic, by what they are drawn from; the manifest says which video is which.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models import geometry
from models.pixels import to_uint8
from models.video import write
from stages.data.arrays import write_tracks
from stages.data.items import content_hash, item_id, recipe, remove_leftovers, write_atomically
from stages.data.paths import videos_folder
from stages.data.tables import MANIFEST, write_table
from stages.params import Params, Split, SyntheticParams
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items
from stages.sources.known import read_known, state_of, write_known
from stages.sources.listing import NOT_FOUND, SourceVideo, list_folder, list_realestate10k, list_webvid
from stages.sources.storage import RECORDS, LocalCopies, RemoteFile, SourceError, keep_only, take_in

if TYPE_CHECKING:
    from models import scenes

SEEDS_PER_SPLIT = 500_000  # video i of mixed takes seed collect.seed * 1_000_000 + i, camera 500_000 more
TRUTH_GRID = 16


@dataclass(frozen=True)
class SceneJob:
    """One synthetic video to draw."""

    kind: "scenes.Kind"
    seed: int
    frames: int
    settings: SyntheticParams
    name: str
    folder: Path


@dataclass(frozen=True)
class VideoJob:
    """One video of a source to take in. `copy` is its copy, if it has not changed; `state` tells that the next time."""

    source: SourceVideo
    folder: Path
    state: str | None
    copy: str | None


def run(split: Split, params: Params) -> None:
    folder = videos_folder(split)
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / RECORDS):
        remove_leftovers(place)
    remote: set[RemoteFile] = set()
    if params.collect.source_of(split) == "synthetic":
        rows = list(
            map_items(draw_video, plan_scenes(split, params), params.compute, f"collect@{split}", _crashed_scene)
        )
    else:
        copies = LocalCopies(folder)
        known = read_known(split)
        sources = [(source, _state(source)) for source in _list_source(split, params, copies)]
        items = [VideoJob(source, folder, state, known.get(state or "")) for source, state in sources]
        rows = list(map_items(take_video, items, params.compute, f"collect@{split}", _crashed_video))
        taken = {row["video"]: row["file"] for row in rows if row["file"]}
        states = [(item.state, taken.get(item.source.video)) for item in items]
        write_known(split, [(state, copy) for state, copy in states if state and copy])
        remote = copies.fetched | {item.source.file for item in items if isinstance(item.source.file, RemoteFile)}
    keep_only(folder, {row[key] for row in rows for key in ("file", "truth", "poses")} | {"manifest.parquet"}, remote)
    write_table(folder / "manifest.parquet", sorted(rows, key=lambda row: row["video"]), MANIFEST)


def plan_scenes(split: Split, params: Params) -> list[SceneJob]:
    """What to draw: camera-only scenes for `camera`; for `mixed` moving objects, in a share of the videos under a
    moving camera.

    Raises:
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
    shaping = [settings.width, settings.height, settings.fps, settings.movers]
    made_by = recipe(code_of(draw_video), settings=shaping)
    low, high = settings.frames
    plan = []
    for index in range(count):
        kind, number = _kind(split, index, settings.moving_camera), first + index
        frames = int(np.random.default_rng([number, 1]).integers(low, high + 1))
        name = item_id(made_by, kind, number, frames)
        plan.append(SceneJob(kind, number, frames, settings, name, videos_folder(split)))
    return plan


def _kind(split: Split, index: int, moving_camera: float) -> "scenes.Kind":
    """Of video `index`; the videos under a moving camera are spread evenly through the mixed ones."""
    if split == "camera":
        return "camera"
    return "mixed" if int((index + 1) * moving_camera) > int(index * moving_camera) else "object"


def draw_video(item: SceneJob) -> dict[str, Any]:
    """Render a scene and its true tracks, unless they are there; return its row of the manifest."""
    import torch

    from models import scenes

    width, height = item.settings.width, item.settings.height
    scene = scenes.sample_scenes([item.kind], item.frames, [item.seed], item.settings.movers)
    path, truth = item.folder / f"{item.name}.mp4", item.folder / f"{item.name}.npz"
    if not truth.exists():
        points = torch.from_numpy(geometry.point_grid(width, height, TRUTH_GRID))
        tracks, visibility = scenes.true_tracks(scene, points[None], width, height)
        write_tracks(truth, tracks[0].numpy(), visibility[0].numpy())
    if not path.exists():
        frames = to_uint8(scenes.render(scene, width, height)[0])
        write_atomically(path, write.encode_mp4(frames, item.settings.fps))
    facts = {"content": content_hash(path), "caption": scenes.scene_captions(scene)[0], "truth": truth.name}
    return _row(f"{item.kind}-{item.seed}.mp4", path, **facts)


def take_video(item: VideoJob) -> dict[str, Any]:
    """Copy or fetch a video and its poses, unless they are there; return its row of the manifest.

    Raises:
        SourceError: the storage that it lies in fails.
    """
    source = item.source
    facts: dict[str, Any] = {"caption": source.caption, "start": source.start, "end": source.end}
    if source.file is None:
        return _row(source.video, None, reason=source.reason, **facts)
    try:
        path = take_in(source.file, item.folder, item.copy)
        poses = take_in(source.poses, item.folder).name if source.poses else None
    except FileNotFoundError:
        return _row(source.video, None, reason=NOT_FOUND, **facts)
    except OSError as error:
        return _row(source.video, None, reason=f"cannot be read: {error.strerror or error}", **facts)
    return _row(source.video, path, content=path.stem, poses=poses, **facts)


def _state(source: SourceVideo) -> str | None:
    """Of a local video. It is taken before the video is read, so a change meanwhile is seen the next time."""
    return state_of(source.file) if isinstance(source.file, Path) else None


def _row(name: str, path: Path | None, reason: str = "", **facts: object) -> dict[str, Any]:
    row = {"video": name, "file": path.name if path else None, "content": None, "reason": reason}
    return row | {"caption": "", "start": None, "end": None, "truth": None, "poses": None} | facts


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
    return _row(f"{item.kind}-{item.seed}.mp4", None, reason="drawing it crashed")


def _crashed_video(item: VideoJob) -> dict[str, Any]:
    return _row(item.source.video, None, caption=item.source.caption, reason="copying it crashed")


if __name__ == "__main__":
    run_stage("stages.collect")

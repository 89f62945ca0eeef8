"""Raw videos -> clips (Sec 2.2, steps 2 to 4): data/clips/<split>/*.mp4 and clips.parquet, one row per raw video.

    python -m stages.clips --split mixed

Every clip is measured once, in `measured/<clip_id>.json`. Which of them are kept depends on the whole split and on
thresholds, so the others wait in `dropped/` and come back, without being made again, when videos or thresholds change.
Where the source gives the camera's poses, `poses/<clip_id>.npz` has those of the clip's frames.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.curation import clip, poses
from models.curation.clip import ClipSettings
from models.curation.outcome import Clip, Dropped, Facts, Step
from models.curation.selection import Reasons, Rules, Source, class_of, select
from models.curation.subset import subset_of
from models.estimators import load_estimator
from models.video import write
from stages.data.arrays import write_poses
from stages.data.items import ItemFolder, item_id, recipe, remove_leftovers, write_atomically
from stages.data.paths import clips_folder, poses_folder, videos_folder
from stages.data.tables import CLIPS, read_manifest, write_table
from stages.params import ClipsParams, Params, Split
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items


@dataclass(frozen=True)
class ClipJob:
    """One content to make a clip of, with the parameters that shape it."""

    clip_id: str
    content: str
    file: Path
    poses: Path | None
    span: tuple[float, float] | None
    folder: Path
    posed: Path
    settings: ClipSettings
    fps: float
    cuts: str
    flow: str
    flow_options: dict[str, Any]
    seed: int


def run(split: Split, params: Params) -> None:
    folder, posed, manifest = clips_folder(split), poses_folder(split), read_manifest(split)
    made_by, settings = _recipe(params), _settings(params)
    manifest["clip_id"] = [
        item_id(made_by, row.content or row.video, row.start, row.end, row.poses) for row in _rows(manifest)
    ]
    items = {
        row.clip_id: ClipJob(
            row.clip_id,
            row.content,
            videos_folder(split) / row.file,
            videos_folder(split) / row.poses if row.poses else None,
            None if row.start is None else (row.start, row.end),
            folder,
            posed.path(row.clip_id),
            settings,
            params.video.fps,
            params.clips.cuts,
            params.clips.flow,
            params.clips.flow_options(),
            params.clips.seed,
        )
        for row in _rows(manifest)
        if row.file
    }
    measured, kept, dropped = ItemFolder(folder / "measured", ".json"), *_clip_folders(folder)
    for place in (kept, dropped, posed):
        place.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place.folder)
        for stale in place.ids() - items.keys():
            place.path(stale).unlink()
    missing = measured.prepare(items, made_by)
    for clip_id in items.keys() - set(missing):
        whole = (kept.has(clip_id) or dropped.has(clip_id)) and (posed.has(clip_id) or not items[clip_id].poses)
        if not (whole or _read(measured, clip_id)[1]):
            missing.append(clip_id)
    neural = params.is_neural("flow")
    for _ in map_items(make_clip, [items[i] for i in missing], params.compute, f"clips@{split}", _crashed, neural):
        pass

    found = {clip_id: _read(measured, clip_id) for clip_id in items}
    facts = {clip_id: fact for clip_id, (fact, _) in found.items()}
    reasons: Reasons = {clip_id: reason for clip_id, (_, reason) in found.items() if reason}
    sources = {row.clip_id: Source(row.video, row.content) for row in reversed(list(_rows(manifest)))}
    made = {clip_id: fact for clip_id, fact in facts.items() if clip_id not in reasons}
    rules = _rules(split, params)
    unwanted = select(made, sources, rules)
    for clip_id in made:
        source, target = (kept, dropped) if clip_id in unwanted else (dropped, kept)
        if source.has(clip_id):
            os.replace(source.path(clip_id), target.path(clip_id))
    rows = _table(manifest, facts, reasons | unwanted, rules, params.clips)
    write_table(folder / "clips.parquet", rows, CLIPS)


def make_clip(item: ClipJob) -> None:
    """Write the clip and its poses, if there are any, then what was measured: its presence says that all are whole."""
    result = clip.curate_clip(
        item.file,
        item.settings,
        load_estimator("cuts", item.cuts),
        load_estimator("flow", item.flow, **item.flow_options),
        np.random.default_rng([item.seed, int(item.content[:16], 16)]),
        item.span,
    )
    if isinstance(result, Clip):
        kept, _ = _clip_folders(item.folder)
        write_atomically(kept.path(item.clip_id), write.encode_mp4(result.frames, result.fps or item.fps))
        if item.poses:
            _, path = poses.parse_camera_file(item.poses.read_text(encoding="utf-8"))
            write_poses(item.posed, *poses.poses_at(path, result.times, result.view))
    _write_facts(item, result)


def _crashed(item: ClipJob) -> None:
    reason = "reading it crashed or hung the decoder, or needed too much memory"
    _write_facts(item, Dropped("decode", reason, Facts()))


def _write_facts(item: ClipJob, result: Clip | Dropped) -> None:
    reason = {"step": result.step, "reason": result.reason} if isinstance(result, Dropped) else {}
    path = ItemFolder(item.folder / "measured", ".json").path(item.clip_id)
    write_atomically(path, (json.dumps(asdict(result.facts) | reason) + "\n").encode())


def _read(measured: ItemFolder, clip_id: str) -> tuple[Facts, tuple[Step, str] | None]:
    """What was measured, and, if there is no clip, at which step it was given up and why."""
    data = json.loads(measured.path(clip_id).read_text(encoding="utf-8"))
    reason = (data["step"], data["reason"]) if "reason" in data else None
    return Facts(**{field.name: data[field.name] for field in fields(Facts)}), reason


def _table(
    manifest: pd.DataFrame, facts: dict[str, Facts], reasons: Reasons, rules: Rules, settings: ClipsParams
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    first_with: dict[str, str] = {}
    for row in _rows(manifest):
        fact = facts.get(row.clip_id, Facts())
        step, reason = reasons.get(row.clip_id, (None, "")) if row.file else ("collect", row.reason)
        if not reason and row.clip_id in first_with:
            step, reason = "duplicate", f"same content as {first_with[row.clip_id]}"
        first_with.setdefault(row.clip_id, row.video)
        measures = asdict(fact)
        del measures["signature"]
        rows.append(
            measures
            | {"video": row.video, "clip_id": row.clip_id, "status": "dropped" if reason else "kept"}
            | {
                "step": step,
                "reason": reason,
                "camera": class_of(fact, rules) if fact.motion_score is not None else None,
            }
            | {"subset": subset_of(row.content, settings.held_out, settings.validation) if row.content else None}
        )
    return rows


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
        code_of(make_clip, params),
        clips=settings.model_dump(include={"seed", "cuts", "margin", "crop_bars", "interval"}),
        flow=[settings.flow, settings.flow_options()],
        video=params.video.model_dump(include={"width", "height", "clip_frames", "fps"}),
    )


def _clip_folders(folder: Path) -> tuple[ItemFolder, ItemFolder]:
    """Where the clips that are kept lie, and those that are not."""
    return ItemFolder(folder, ".mp4"), ItemFolder(folder / "dropped", ".mp4")


def _rows(manifest: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples, missing values as None."""
    return manifest.astype(object).where(manifest.notna(), None).itertuples(index=False)


if __name__ == "__main__":
    run_stage("stages.clips")

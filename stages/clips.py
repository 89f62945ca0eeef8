"""Raw videos -> clips (Sec 2.2, steps 2 to 4): data/clips/<split>/*.mp4 and clips.parquet, one row per raw video.

    python -m stages.clips --split mixed

Every clip is measured once, in `measured/<clip_id>.json`. The share with the least motion depends on the whole split,
so its clips wait in `dropped/` and come back, without being made again, when new videos change the ranking.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from models import video
from models.curation import clip, crop, cuts, motion, sampling
from models.curation.motion import least_motion
from models.curation.outcome import Clip, Dropped, Facts
from models.curation.subset import subset_of
from models.estimators import estimator_module, load_estimator
from models.video import Size
from stages.command import run_split_stage
from stages.compute import map_items
from stages.contracts import CLIPS, clips_folder, read_manifest, videos_folder, write_table
from stages.items import ItemFolder, item_id, recipe, remove_leftovers, write_atomically
from stages.params import Params, Split


@dataclass(frozen=True)
class Item:
    """One content to make a clip of, with the parameters that shape it."""

    clip_id: str
    content: str
    file: Path
    span: tuple[float, float] | None
    folder: Path
    size: Size
    frames: int
    fps: float
    interval: tuple[int, int]
    cuts: str
    flow: str
    seed: int


def run(split: Split, params: Params) -> None:
    folder, manifest = clips_folder(split), read_manifest(split)
    made_by = _recipe(params)
    manifest["clip_id"] = [item_id(made_by, row.content or row.video, row.start, row.end) for row in _rows(manifest)]
    items = {
        row.clip_id: Item(
            row.clip_id,
            row.content,
            videos_folder(split) / row.file,
            None if row.start is None else (row.start, row.end),
            folder,
            (params.video.width, params.video.height),
            params.video.clip_frames,
            params.video.fps,
            params.clips.interval,
            params.clips.cuts,
            params.clips.flow,
            params.clips.seed,
        )
        for row in _rows(manifest)
        if row.file
    }
    measured, kept, low = ItemFolder(folder / "measured", ".json"), *_clip_folders(folder)
    for place in (kept, low):
        place.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place.folder)
        for stale in place.ids() - items.keys():
            place.path(stale).unlink()
    missing = measured.prepare(items, made_by)
    for clip_id in items.keys() - set(missing):
        if not (kept.has(clip_id) or low.has(clip_id) or _read_facts(measured, clip_id)["reason"]):
            missing.append(clip_id)
    neural = params.clips.flow == "raft"
    for _ in map_items(make_clip, [items[i] for i in missing], params.compute, f"clips@{split}", _crashed, neural):
        pass

    facts = {clip_id: _read_facts(measured, clip_id) for clip_id in items}
    scores = {clip_id: fact["motion_score"] for clip_id, fact in facts.items() if not fact["reason"]}
    least = least_motion(scores, params.clips.drop_share[split])
    for clip_id in scores:
        source, target = (kept, low) if clip_id in least else (low, kept)
        if source.has(clip_id):
            os.replace(source.path(clip_id), target.path(clip_id))
    write_table(folder / "clips.parquet", _table(manifest, facts, least, params, split), CLIPS)


def make_clip(item: Item) -> None:
    """Write the clip, if there is one, then what was measured: the latter's presence says that both are whole."""
    result = clip.curate_clip(
        item.file,
        item.size,
        item.frames,
        item.interval,
        load_estimator("cuts", item.cuts),
        load_estimator("flow", item.flow),
        np.random.default_rng([item.seed, int(item.content[:16], 16)]),
        item.span,
    )
    if isinstance(result, Clip):
        kept, _ = _clip_folders(item.folder)
        write_atomically(kept.path(item.clip_id), video.encode_mp4(result.frames, result.fps or item.fps))
    _write_facts(item, result)


def _crashed(item: Item) -> None:
    _write_facts(item, Dropped("reading it crashed the decoder or needed too much memory", Facts()))


def _write_facts(item: Item, result: Clip | Dropped) -> None:
    facts = asdict(result.facts) | {"reason": result.reason if isinstance(result, Dropped) else ""}
    path = ItemFolder(item.folder / "measured", ".json").path(item.clip_id)
    write_atomically(path, (json.dumps(facts) + "\n").encode())


def _read_facts(measured: ItemFolder, clip_id: str) -> dict:
    return json.loads(measured.path(clip_id).read_text(encoding="utf-8"))


def _table(manifest: pd.DataFrame, facts: dict, least: set[str], params: Params, split: Split) -> list[dict]:
    rows: list[dict] = []
    first_with: dict[str, str] = {}
    for row in _rows(manifest):
        fact = facts.get(row.clip_id, asdict(Facts()) | {"reason": row.reason})
        reason = fact["reason"]
        if not reason and row.clip_id in first_with:
            reason = f"same content as {first_with[row.clip_id]}"
        elif not reason and row.clip_id in least:
            share = params.clips.drop_share[split]
            reason = f"little motion: score {fact['motion_score']:.1f} is among the lowest {share:.0%} of the split"
        first_with.setdefault(row.clip_id, row.video)
        rows.append(
            fact
            | {"video": row.video, "clip_id": row.clip_id, "status": "dropped" if reason else "kept", "reason": reason}
            | {"subset": subset_of(row.content, params.clips.held_out) if row.content else None}
        )
    return rows


def _recipe(params: Params) -> str:
    settings = params.clips
    estimators = [estimator_module("cuts", settings.cuts), estimator_module("flow", settings.flow)]
    return recipe(
        [clip, crop, cuts, motion, sampling, video, *estimators],
        clips=settings.model_dump(include={"seed", "cuts", "flow", "interval"}),
        video=params.video.model_dump(include={"width", "height", "clip_frames", "fps"}),
    )


def _clip_folders(folder: Path) -> tuple[ItemFolder, ItemFolder]:
    """Where the clips that are kept lie, and those with too little motion."""
    return ItemFolder(folder, ".mp4"), ItemFolder(folder / "dropped", ".mp4")


def _rows(manifest: pd.DataFrame):
    """Rows as named tuples, missing values as None."""
    return manifest.astype(object).where(manifest.notna(), None).itertuples(index=False)


if __name__ == "__main__":
    run_split_stage("stages.clips")

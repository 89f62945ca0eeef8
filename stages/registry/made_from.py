"""The chain from a registered version back to runs, commits, hashes of dvc.lock, curated clips and their sources."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from models.errors import UserError
from models.sampling.identity import weights_hash
from models.serving.record import VideoRecord
from stages.data.curated import curated_clips
from stages.data.paths import MODEL
from stages.data.tables import read_clips
from stages.params import SPLITS, Split
from stages.registry.versions import Versions

LOCK = Path("dvc.lock")
SHOWN_SOURCES = 8


def version_of(versions: Versions, record: VideoRecord) -> Any | None:
    """The registered version that a record names if its weights are the same; else the newest with these weights."""
    found = versions.with_weights(record.weights)
    name, _, number = record.registered.rpartition("/")
    named = [each for each in found if name == versions.name and str(each.version) == number]
    return next(iter(named or found), None)


def registered_chain(versions: Versions, version: Any) -> list[str]:
    """A version, the commit and lock file that it was registered on, and the runs that made and measured it."""
    tags = version.tags
    dirty = ", with changes that were not committed" if tags.get("git_dirty") == "true" else ""
    lines = [
        f"registered: {versions.name} version {version.version}, run {version.run_id}",
        f"  git commit {tags.get('git_commit', 'unknown')}{dirty}",
        f"  dvc.lock   {tags.get('dvc_lock', 'unknown')} (SHA-256 of the file)",
    ]
    for tag, run in sorted(tags.items()):
        if tag.startswith("run."):
            name = tag.removeprefix("run.")
            weights = tags.get(f"weights.{name}")
            lines.append(
                f"  {name}: run {run}, commit {versions.commit_of(run)}{f', weights {weights}' if weights else ''}"
            )
    return lines


def local_chain(version: Any | None, record: VideoRecord) -> list[str]:
    """The hashes of dvc.lock, the curated clips and their sources, if the files here are those of the video's model."""
    if not LOCK.is_file():
        return ["dvc.lock: not here; run `explain` in the checkout of the project"]
    if not MODEL.is_dir() or weights_hash(MODEL) != record.weights:
        commit = version.tags.get("git_commit") if version else None
        remedy = f"; git checkout {commit} && dvc checkout brings its files back" if commit else ""
        return [f"dvc.lock: {MODEL} here is not the video's model, so the hashes are left out{remedy}"]
    stages: Mapping[str, Any] = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]
    lines = ["dvc.lock:"]
    for stage, entry in stages.items():
        lines += [f"  {stage}: {out['path']} {out.get('md5', '')}".rstrip() for out in entry.get("outs", [])]
    for split in SPLITS:
        try:
            lines.append(_clips(split))
        except (UserError, OSError) as error:
            lines.append(f"clips, {split}: {error}")
    return lines


def _clips(split: Split) -> str:
    kept = {clip.clip_id for clip in curated_clips(split, subset="train")}
    rows = read_clips(split)
    sources = sorted(set(rows.loc[rows["clip_id"].isin(kept), "video"]))
    more = f" and {len(sources) - SHOWN_SOURCES} more" if len(sources) > SHOWN_SOURCES else ""
    names = ", ".join(sources[:SHOWN_SOURCES])
    return f"clips, {split}: {len(kept)} for training, of {len(sources)} videos: {names}{more}"

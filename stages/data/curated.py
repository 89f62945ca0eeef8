"""The curated clips: the joint output of all curation stages, for training and evaluation.

for clip in curated_clips("mixed", subset="train"): ...
"""

from dataclasses import dataclass
from pathlib import Path

from models.curation.subset import Subset
from stages.data.paths import captions_file, clip_videos, draws_folder, poses_folder, tracks_file, tracks_folder
from stages.data.tables import CAPTIONS, ContractError, read_clips, read_table, read_track_facts
from stages.params import Split


@dataclass(frozen=True)
class CuratedClip:
    """A kept clip and where its parts are: `video` mp4, `tracks` and `draws` npz. `caption` may be empty.

    They are read with `stages.data.arrays`, because they lie in shards. `poses` npz: the camera's, if the
    source gives them.
    """

    clip_id: str
    subset: Subset
    caption: str
    video: Path
    tracks: Path
    draws: Path
    poses: Path | None


def curated_clips(split: Split, subset: Subset | None = None) -> list[CuratedClip]:
    """The clips of a split that neither the stage clips nor tracks drops, by `clip_id`; with `subset` only those of it.

    Raises:
        ContractError: a table or a part of a clip is missing, or not what its contract says.
    """
    rows = read_clips(split)
    rows = rows[rows["status"] == "kept"].sort_values("clip_id")
    judged = read_track_facts(split).set_index("clip_id")["status"]
    if missing := set(rows["clip_id"]) - set(judged.index):
        raise ContractError(f"{tracks_file(split)}: no row for clip {min(missing)}; run the stage tracks again")
    rows = rows[rows["clip_id"].map(judged) == "kept"]
    described = read_table(captions_file(split), CAPTIONS)
    captions = dict(zip(described["clip_id"], described["caption"], strict=True))
    if missing := set(rows["clip_id"]) - captions.keys():
        raise ContractError(f"{captions_file(split)}: no row for clip {min(missing)}; run the stage captions again")
    videos = clip_videos(split)
    tracks, draws, poses = tracks_folder(split), draws_folder(split), poses_folder(split)
    made, tracked, drawn, posed = videos.ids(), tracks.ids(), draws.ids(), poses.ids()
    clips = [
        CuratedClip(
            clip_id=row.clip_id,
            subset=row.subset,
            caption=captions[row.clip_id],
            video=videos.path(row.clip_id),
            tracks=tracks.path(row.clip_id),
            draws=draws.path(row.clip_id),
            poses=poses.path(row.clip_id) if row.clip_id in posed else None,
        )
        for row in rows[["clip_id", "subset"]].itertuples()
        if subset is None or row.subset == subset
    ]
    for clip in clips:
        there = (clip.video, clip.clip_id in made), (clip.tracks, clip.clip_id in tracked)
        for part, exists in (*there, (clip.draws, clip.clip_id in drawn)):
            if not exists:
                raise ContractError(f"{part}: missing; run the stage {part.parts[1]} again")
    return clips

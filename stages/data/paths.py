"""The paths of the pipeline's folders and files, each named once."""

from pathlib import Path

from stages.data.shards import ShardedItems
from stages.params import Split

FOUNDATION = Path("artifacts/foundation")
MOTION_CONTROLNET = Path("artifacts/motion_controlnet")
CAMERA_LORA = Path("artifacts/camera_lora")
OBJECT_LORA = Path("artifacts/object_lora")
MODEL = Path("artifacts/model")
EVALUATION = Path("metrics/evaluation.json")
EVALUATION_REPORT = Path("reports/evaluation")
REGISTRATION = Path("metrics/registration.json")


def videos_folder(split: Split) -> Path:
    return Path("data/videos") / split


def drawn_videos(split: Split) -> ShardedItems:
    """The synthetic videos."""
    return ShardedItems(videos_folder(split) / "drawn", ".mp4")


def true_tracks_folder(split: Split) -> ShardedItems:
    """The true tracks of the synthetic videos."""
    return ShardedItems(videos_folder(split) / "truth", ".npz")


def source_poses(split: Split) -> ShardedItems:
    """The files with cameras' poses that a source has, by content."""
    return ShardedItems(videos_folder(split) / "poses", ".txt")


def fetched_folder(split: Split) -> Path:
    """Videos of a storage, by content. It is no output of DVC: the storage has them."""
    return Path(".cache/videos") / split


def clips_folder(split: Split) -> Path:
    return Path("data/clips") / split


def captions_file(split: Split) -> Path:
    return Path("data/captions") / f"{split}.parquet"


def clip_videos(split: Split) -> ShardedItems:
    """Every clip that was made; the table says which are kept."""
    return ShardedItems(clips_folder(split) / "videos", ".mp4")


def measures_folder(split: Split) -> ShardedItems:
    """What was measured of each raw video."""
    return ShardedItems(clips_folder(split) / "measured", ".json")


def shared_file(split: Split) -> Path:
    """The table of videos that share footage."""
    return clips_folder(split) / "shared.parquet"


def poses_folder(split: Split) -> ShardedItems:
    return ShardedItems(clips_folder(split) / "poses", ".npz")


def tracks_folder(split: Split) -> ShardedItems:
    return ShardedItems(Path("data/tracks") / split, ".npz")


def tracks_file(split: Split) -> Path:
    """The table of what was measured of the tracks, and which clips are dropped for them."""
    return tracks_folder(split).folder / "tracks.parquet"


def draws_folder(split: Split) -> ShardedItems:
    return ShardedItems(Path("data/sparse_flows") / split, ".npz")


def latents_folder(split: Split) -> ShardedItems:
    return ShardedItems(Path("data/latents") / split, ".safetensors")

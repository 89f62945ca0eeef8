"""VAE latents and text embeddings of the curated clips, encoded once: `python -m stages.latents --split mixed`.

data/latents/<split>/shard-*.zip holds <clip_id>.safetensors: `latents` (T, C, h, w) float16, scaled, and `text` (L, D)
float16.
Clips are spread over GPUs and machines as `params.compute` says.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save

from models.networks.foundation import Encoders
from models.precision import frozen_dtype
from stages.data.curated import CuratedClip, curated_clips
from stages.data.footage import read_clip
from stages.data.items import content_hash, recipe, write_atomically
from stages.data.paths import FOUNDATION, latents_folder
from stages.data.shards import ShardedItems, read_item
from stages.data.tables import ContractError
from stages.params import LatentsParams, Params, Split
from stages.run.code import code_of
from stages.run.command import run_stage
from stages.run.compute import map_items
from stages.run.device import best_device

HEAD = 2048  # bytes at the beginning of a latents file that hold its header, if the caption is not very long


@dataclass(frozen=True)
class LatentJob:
    """One clip to encode, and the file to write. `weights` is the hash of the foundation: no worker uses an old one."""

    clip: CuratedClip
    file: Path
    settings: LatentsParams
    weights: str


def run(split: Split, params: Params) -> None:
    folder, weights = latents_folder(split), content_hash(FOUNDATION / "weights.json")
    clips = {clip.clip_id: clip for clip in curated_clips(split)}
    folder.prepare(sorted(clips), recipe(code_of(encode_clip), weights=weights, precision=params.latents.precision))
    encoded = _captions_of(folder, clips)
    missing = [clip for clip_id, clip in clips.items() if encoded.get(clip_id) != clip.caption]
    jobs = [LatentJob(clip, folder.path(clip.clip_id), params.latents, weights) for clip in missing]
    for _ in map_items(write_latents, jobs, params.compute, f"latents@{split}", _crashed, one_per_accelerator=True):
        pass
    folder.pack(clips)


def write_latents(job: LatentJob) -> None:
    """Encode a clip with this process's foundation and write its file."""
    device = best_device()
    encoders = _encoders(job.weights, device, frozen_dtype(job.settings.precision, device))
    write_atomically(job.file, encode_clip(job.clip, encoders, job.settings.batch_size), lasting=False)


def encode_clip(clip: CuratedClip, encoders: Encoders, batch_size: int) -> bytes:
    """The safetensors file of one clip, with the caption as metadata; `batch_size` frames are encoded at once."""
    frames = torch.from_numpy(read_clip(clip.video)).permute(0, 3, 1, 2) / 255
    parts = [encoders.encode_images(part) for part in frames.split(batch_size)]
    data = {
        "latents": torch.cat(parts).half().cpu().contiguous(),
        "text": encoders.encode_text([clip.caption])[0].half().cpu().contiguous(),
    }
    return save(data, {"caption": clip.caption})


@cache
def _encoders(weights: str, device: torch.device, dtype: torch.dtype) -> Encoders:
    return Encoders.load(FOUNDATION, dtype).to(device)


def _crashed(job: LatentJob) -> None:
    raise ContractError(
        f"{job.clip.video}: encoding it ended its process, perhaps for lack of memory; lower latents.batch_size"
    )


def _captions_of(folder: ShardedItems, clips: Iterable[str]) -> dict[str, str]:
    """The caption that each clip was encoded with, by clip. Only the headers of their files are read."""
    captions = {}
    for clip_id, head in folder.read(clips, HEAD):
        length = 8 + int.from_bytes(head[:8], "little")
        header = json.loads((head if length <= len(head) else read_item(folder.path(clip_id), length))[8:length])
        captions[clip_id] = header["__metadata__"]["caption"]
    return captions


if __name__ == "__main__":
    run_stage("stages.latents")

"""VAE latents and text embeddings of the curated clips, encoded once: `python -m stages.latents --split mixed`.

data/latents/<split>/<clip_id>.safetensors holds `latents` (T, C, h, w) float16, scaled, and `text` (L, D) float16.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from tqdm import tqdm

from models.networks.foundation import Foundation
from models.video.read import read_video
from stages.data.curated import CuratedClip, curated_clips
from stages.data.items import content_hash, recipe, write_atomically
from stages.data.paths import FOUNDATION, latents_folder
from stages.params import Params, Split
from stages.run.code import code_of
from stages.run.command import run_stage


def run(split: Split, params: Params) -> None:
    folder = latents_folder(split)
    clips = {clip.clip_id: clip for clip in curated_clips(split)}
    folder.prepare(sorted(clips), recipe(code_of(encode_clip), weights=content_hash(FOUNDATION / "weights.json")))
    missing = [clip for clip_id, clip in clips.items() if not _is_encoded(folder.path(clip_id), clip.caption)]
    if not missing:
        return
    base = Foundation.load(FOUNDATION).to("cuda" if torch.cuda.is_available() else "cpu")
    for clip in tqdm(missing, desc=f"latents@{split}", unit="clip"):
        write_atomically(folder.path(clip.clip_id), encode_clip(clip, base, params.latents.batch_size))


def encode_clip(clip: CuratedClip, base: Foundation, batch_size: int) -> bytes:
    """The safetensors file of one clip, with the caption as metadata; `batch_size` frames at once."""
    frames = torch.from_numpy(read_video(clip.video)[0]).permute(0, 3, 1, 2) / 255
    parts = [base.encode_images(part.to(base.vae.device)) for part in frames.split(batch_size)]
    data = {
        "latents": torch.cat(parts).half().cpu().contiguous(),
        "text": base.encode_text([clip.caption])[0].half().cpu().contiguous(),
    }
    return save(data, {"caption": clip.caption})


def _is_encoded(path: Path, caption: str) -> bool:
    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("caption") == caption


if __name__ == "__main__":
    run_stage("stages.latents")

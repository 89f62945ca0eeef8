"""VAE latents and text embeddings of the curated clips, encoded once: `python -m stages.latents --split mixed`.

data/latents/<split>/<clip_id>.safetensors holds `latents` (T, C, h, w) float16, scaled, and `text` (L, D) float16.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from tqdm import tqdm

from models import codec, foundation
from models.foundation import Foundation
from models.video import read_video
from stages.command import run_split_stage
from stages.contracts import curated_clips
from stages.items import ItemFolder, content_hash, recipe, write_atomically
from stages.params import Params, Split

FOUNDATION = Path("artifacts/foundation")


def latents_folder(split: Split) -> ItemFolder:
    return ItemFolder(Path("data/latents") / split, ".safetensors")


def read_latents(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (T, C, h, w) and text (L, D) of one clip, float32."""
    data = load_file(path)
    return data["latents"].float(), data["text"].float()


def run(split: Split, params: Params) -> None:
    folder = latents_folder(split)
    clips = {clip.clip_id: clip for clip in curated_clips(split)}
    folder.prepare(sorted(clips), recipe([codec, foundation], weights=content_hash(FOUNDATION / "weights.json")))
    missing = [clip for clip_id, clip in clips.items() if not _is_encoded(folder.path(clip_id), clip.caption)]
    if not missing:
        return
    base = Foundation.load(FOUNDATION).to("cuda" if torch.cuda.is_available() else "cpu")
    for clip in tqdm(missing, desc=f"latents@{split}", unit="clip"):
        frames = torch.from_numpy(read_video(clip.video)[0]).permute(0, 3, 1, 2) / 255
        parts = [base.encode_images(part.to(base.vae.device)) for part in frames.split(params.latents.batch_size)]
        data = {
            "latents": torch.cat(parts).half().cpu().contiguous(),
            "text": base.encode_text([clip.caption])[0].half().cpu().contiguous(),
        }
        write_atomically(folder.path(clip.clip_id), save(data, {"caption": clip.caption}))


def _is_encoded(path: Path, caption: str) -> bool:
    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("caption") == caption


if __name__ == "__main__":
    run_split_stage("stages.latents")

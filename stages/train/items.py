"""Training items: runs of frames cut from curated clips in memory, each determined by seed and item number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stages.data.arrays import read_draws, read_latents, read_tracks
from stages.data.curated import CuratedClip, curated_clips
from stages.data.paths import latents_folder
from stages.data.tables import ContractError
from stages.params import Params, Split, TrainingParams

CLIPS_IN_MEMORY = 2048  # clips of 1 MB each at the paper's size; more clips, less reading from disk, more memory
AS_ONE = 0.15  # share of the common motion by which tracks may deviate and still count as moving as one
StrokeKind = Literal["dense", "sparse", "single"]


@dataclass(frozen=True)
class EncodedClip:
    """One clip in memory: latents (T, C, h, w), text (L, D), tracks (T, N, 2), visibility (T, N), draws (D, n)."""

    latents: Tensor
    text: Tensor
    tracks: Tensor
    visibility: Tensor
    draws: np.ndarray

    @classmethod
    def read(cls, clip: CuratedClip, split: Split) -> "EncodedClip":
        latents, text = read_latents(latents_folder(split).path(clip.clip_id))
        tracks, visibility = (torch.from_numpy(part) for part in read_tracks(clip.tracks))
        return cls(latents, text, tracks, visibility, read_draws(clip.draws))


def chosen_strokes(tracks: Tensor, visibility: Tensor, draw: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
    """The tracks (T, n, 2) of one draw and their visibility (T, n). Unused places of the draw (-1) are invisible."""
    chosen = torch.as_tensor(np.asarray(draw)).long()
    return tracks[:, chosen], visibility[:, chosen] & (chosen >= 0)


def moves_as_one(tracks: Tensor, visibility: Tensor) -> bool:
    """Whether all tracks (T, N, 2) that stay visible (T, N) move alike, as under a panning camera."""
    seen = visibility.all(0)
    if not seen.any():
        return False
    moved = (tracks - tracks[:1])[:, seen]
    common = moved.median(1, keepdim=True).values
    return bool((moved - common).norm(dim=-1).mean() <= AS_ONE * common.norm(dim=-1).mean())


class TrainingItems(Dataset[dict[str, Tensor]]):
    """Item i of a stage: a random run of frames of a random clip, with strokes, noise and the item's seed.

    `strokes` chooses the strokes of an item: all tracks (dense), a draw (sparse), or one stroke of the draw (single).
    A single stroke is used only if all tracks of the run move as one. Otherwise one stroke would not determine the
    motion, and the item gets the whole draw. `drop_caption` of an item: train it with the empty prompt in place of its
    caption, because guidance and Eq. 5 sample with the empty prompt too.
    """

    def __init__(self, split: Split, params: Params, settings: TrainingParams, strokes: Callable[[int], StrokeKind]):
        self.clips = curated_clips(split, "train")
        if not self.clips:
            raise ContractError(
                f"data/clips/{split}: no clip to train on; add videos or lower clips.drop_share.{split}"
            )
        self.frames, self.seed, self.strokes = params.video.frames, settings.seed, strokes
        self.caption_dropout = settings.caption_dropout
        self._order = lru_cache(2)(
            lambda epoch: np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.clips))
        )
        self._read = lru_cache(CLIPS_IN_MEMORY)(lambda number: EncodedClip.read(self.clips[number], split))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        epoch, place = divmod(index, len(self.clips))
        clip = self._read(int(self._order(epoch)[place]))
        start = int(rng.integers(0, len(clip.latents) - self.frames + 1))
        run = slice(start, start + self.frames)
        latents = clip.latents[run].transpose(0, 1).contiguous()
        tracks, visibility = clip.tracks[run], clip.visibility[run]
        strokes = self.strokes(index)
        if strokes != "dense":
            draw = clip.draws[rng.integers(0, len(clip.draws))].copy()
            if strokes == "single" and moves_as_one(tracks, visibility):
                draw[1:] = -1
            tracks, visibility = chosen_strokes(tracks, visibility, draw)
        generator = torch.Generator().manual_seed(int(rng.integers(0, 2**62)))
        return {
            "latents": latents,
            "text": clip.text,
            "tracks": tracks,
            "visibility": visibility,
            "noise": torch.randn(latents.shape, generator=generator),
            "u": torch.rand((), generator=generator),
            "drop_caption": torch.tensor(np.random.default_rng([self.seed, 3, index]).random() < self.caption_dropout),
        }

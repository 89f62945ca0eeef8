"""Frechet distances between generated videos and real clips (Sec 3.1)."""

from typing import Any

import numpy as np
import torch

from models.curation.subset import Subset
from models.evaluation.features import LEAST_FRAMES, Features, I3DFeatures, InceptionFeatures, codec_features
from models.metrics import frechet_distance
from models.networks.foundation import Foundation
from stages.data.arrays import read_latents
from stages.data.curated import CuratedClip, curated_clips
from stages.data.footage import read_clip
from stages.data.paths import latents_folder
from stages.data.tables import ContractError
from stages.params import Params, ParamsError, Split

FEWEST_REAL_CLIPS = 2  # that have a covariance
MOST_REAL_CLIPS = 5000  # as many as the paper's distances
REFERENCE: Split = "mixed"  # the split whose clips are the real ones; the videos compared move its pictures


def official_features(params: Params) -> dict[str, Features]:
    """FID's and FVD's networks, by the distance's name, if params ask for them.

    Raises:
        ParamsError: no weights are named, or videos are too short for FVD.
        WeightsUnusable: a file of weights is missing or holds something else.
    """
    settings = params.evaluate
    if settings.features == "codec":
        return {}
    if settings.inception_weights is None or settings.i3d_weights is None:
        raise ParamsError(
            "params.yaml: evaluate.features: 'inception, i3d' needs the official weights: name their files in "
            "evaluate.inception_weights and evaluate.i3d_weights, or set evaluate.features to codec"
        )
    if params.video.frames < LEAST_FRAMES:
        raise ParamsError(
            f"params.yaml: evaluate.features: FVD needs video.frames of {LEAST_FRAMES} or more "
            f"(found {params.video.frames}); set evaluate.features to codec"
        )
    return {"fid": InceptionFeatures(settings.inception_weights), "fvd": I3DFeatures(settings.i3d_weights)}


class Distances:
    """Frechet distances between generated videos and real clips, each in features of its own name."""

    def __init__(self, foundation: Foundation, official: dict[str, Features], params: Params):
        self.foundation, self.official, self.params = foundation, official, params
        self.made: dict[str, list[np.ndarray]] = {name: [] for name in ("frechet_codec", *official)}
        self.pictures: set[str] = set()

    def add(self, picture: str, video: np.ndarray) -> None:
        """Take in a generated video (T, H, W, 3) uint8. `picture`: id of the clip whose first frame it moves."""
        self.pictures.add(picture)
        latents = encoded(self.foundation, video).transpose(0, 1)
        self.made["frechet_codec"].append(codec_features(latents.float()).cpu().numpy()[None])
        for name, features in self.official.items():
            self.made[name].append(features([video]))

    def entries(self) -> dict[str, Any]:
        """Distance by name, with what it was measured against."""
        return {name: self._entry(name) for name in self.made}

    def _entry(self, name: str) -> dict[str, Any]:
        made, network = np.concatenate(self.made[name]), self.official.get(name)
        rows, real = self._rows(name, "test"), "test clips, mixed split"
        if len(rows) <= made.shape[1]:  # too few for a covariance of full rank
            rows, real = self._rows(name), "all clips, mixed split, training ones included"
        if len(rows) < FEWEST_REAL_CLIPS:
            raise ContractError(f"data/clips/{REFERENCE}: too few clips whose first frame was not animated; add videos")
        entry = {
            "distance": round(frechet_distance(made, rows), 4),
            "n": len(made),
            "pictures": len(self.pictures),
            "n_real": len(rows),
            "real": real,
        }
        return entry | ({"variant": network.variant, "sha256": network.sha256} if network else {})

    def _rows(self, name: str, subset: Subset | None = None) -> np.ndarray:
        """Features of real clips; of those, none whose first frame was animated."""
        clips = [clip for clip in curated_clips(REFERENCE, subset) if clip.clip_id not in self.pictures]
        if not clips:
            return np.zeros((0, 0))
        if len(clips) > MOST_REAL_CLIPS:
            rng = np.random.default_rng(self.params.evaluate.seed)
            clips = [clips[i] for i in rng.choice(len(clips), MOST_REAL_CLIPS, replace=False)]
        return np.concatenate([self._real(name, clip) for clip in clips])

    def _real(self, name: str, clip: CuratedClip) -> np.ndarray:
        frames = self.params.video.frames
        if name in self.official:
            return self.official[name]([read_clip(clip.video)[:frames]])
        latents = read_latents(latents_folder(REFERENCE).path(clip.clip_id))[0][:frames]
        return codec_features(latents.transpose(0, 1)).numpy()[None]


def encoded(foundation: Foundation, video: np.ndarray) -> torch.Tensor:
    """Latents (T, C, h, w) of frames (T, H, W, 3) uint8."""
    return foundation.encode_images(torch.from_numpy(video).movedim(-1, 1) / 255)

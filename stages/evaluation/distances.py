"""Frechet distances between generated videos and real clips (Sec 3.1)."""

from typing import Any

import numpy as np
import torch

from models.evaluation.features import LEAST_FRAMES, Features, I3DFeatures, InceptionFeatures, codec_features
from models.metrics import frechet_distance
from models.networks.foundation import Foundation
from models.video.read import read_video
from stages.data.arrays import read_latents
from stages.data.curated import CuratedClip, curated_clips
from stages.data.paths import latents_folder
from stages.params import SPLITS, Params, ParamsError, Split

MOST_REAL_CLIPS = 5000  # real clips, at most, as in the paper; more gives steadier distances and takes longer


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

    def add(self, video: np.ndarray) -> None:
        """Take in a generated video (T, H, W, 3) uint8."""
        latents = encoded(self.foundation, video).transpose(0, 1)
        self.made["frechet_codec"].append(codec_features(latents).cpu().numpy()[None])
        for name, features in self.official.items():
            self.made[name].append(features([video]))

    def entries(self) -> dict[str, Any]:
        """Distance by name, with what it was measured against."""
        return {name: self._entry(name) for name in self.made}

    def _entry(self, name: str) -> dict[str, Any]:
        made, network = np.concatenate(self.made[name]), self.official.get(name)
        rows, real = self._rows(name, only_held_out=True), "held-out clips"
        if len(rows) <= made.shape[1]:  # too few for a covariance of full rank
            rows, real = self._rows(name, only_held_out=False), "all clips, training ones included"
        entry = {"distance": round(frechet_distance(made, rows), 4), "n": len(made), "n_real": len(rows), "real": real}
        return entry | ({"variant": network.variant, "sha256": network.sha256} if network else {})

    def _rows(self, name: str, only_held_out: bool) -> np.ndarray:
        clips = [(split, clip) for split in SPLITS for clip in curated_clips(split, "eval" if only_held_out else None)]
        if len(clips) > MOST_REAL_CLIPS:
            rng = np.random.default_rng(self.params.evaluate.seed)
            clips = [clips[i] for i in rng.choice(len(clips), MOST_REAL_CLIPS, replace=False)]
        return np.concatenate([self._real(name, split, clip) for split, clip in clips])

    def _real(self, name: str, split: Split, clip: CuratedClip) -> np.ndarray:
        frames = self.params.video.frames
        if name in self.official:
            return self.official[name]([read_video(clip.video)[0][:frames]])
        latents = read_latents(latents_folder(split).path(clip.clip_id))[0][:frames]
        return codec_features(latents.transpose(0, 1)).numpy()[None]


def encoded(foundation: Foundation, video: np.ndarray) -> torch.Tensor:
    """Latents (T, C, h, w) of frames (T, H, W, 3) uint8."""
    return foundation.encode_images(torch.from_numpy(video).movedim(-1, 1) / 255)

"""Frechet distances between generated videos and real clips (Sec 3.1)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from models.curation.subset import Subset
from models.evaluation.features import (
    LEAST_FRAMES,
    Features,
    I3DFeatures,
    InceptionFeatures,
    codec_features,
    sha256_of_weights,
)
from models.metrics import frechet_distance
from models.networks.foundation import Foundation
from stages.data.arrays import read_latents
from stages.data.curated import CuratedClip, curated_clips
from stages.data.paths import latents_folder
from stages.data.tables import ContractError
from stages.params import Params, ParamsError, Split

FEWEST_REAL_CLIPS = 2  # that have a covariance
MOST_REAL_CLIPS = 5000  # as many as the paper's distances
REFERENCE: Split = "mixed"  # the split whose clips are the real ones; the videos compared move its pictures
CODEC = "frechet_codec"  # the distance that needs no weights
NETWORKS: dict[str, type[InceptionFeatures] | type[I3DFeatures]] = {"fid": InceptionFeatures, "fvd": I3DFeatures}


class OfficialNetwork(NamedTuple):
    """The network of an official distance, `fid` or `fvd`: the file of its weights, and the SHA-256 of the file."""

    distance: str
    weights: str
    sha256: str

    @property
    def variant(self) -> str:
        """What the network is, in words."""
        return NETWORKS[self.distance].variant

    def load(self) -> Features:
        """Read the network. Raises WeightsUnusable if the file holds something else."""
        return NETWORKS[self.distance](self.weights)


def distance_networks(params: Params) -> dict[str, OfficialNetwork]:
    """FID's and FVD's networks, by the distance's name, if params ask for them. None of them is loaded yet.

    Raises:
        ParamsError: no weights are named, or videos are too short for FVD.
        WeightsUnusable: a file of weights is missing.
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
    files = {"fid": ("inception", settings.inception_weights), "fvd": ("i3d", settings.i3d_weights)}
    return {
        distance: OfficialNetwork(distance, weights, sha256_of_weights(name, weights))
        for distance, (name, weights) in files.items()
    }


def features_of(video: np.ndarray, foundation: Foundation, official: Mapping[str, Features]) -> dict[str, np.ndarray]:
    """Rows (n, D) of a video (T, H, W, 3) uint8 for each distance, by name."""
    latents = encoded(foundation, video).transpose(0, 1)
    rows = {CODEC: codec_features(latents.float()).cpu().numpy()[None]}
    return rows | {name: features([video]) for name, features in official.items()}


RealRows = Callable[[OfficialNetwork, list[CuratedClip]], np.ndarray]
"""Gives the features (n, D) of real clips."""


class Distances:
    """Frechet distances between generated videos and real clips, each in features of its own name."""

    def __init__(self, official: Mapping[str, OfficialNetwork], params: Params):
        self.official, self.params = official, params
        self.made: dict[str, list[np.ndarray]] = {name: [] for name in (CODEC, *official)}
        self.pictures: set[str] = set()

    def add(self, picture: str, rows: Mapping[str, np.ndarray]) -> None:
        """Take in the features of a generated video. `picture`: id of the clip whose first frame it moves."""
        self.pictures.add(picture)
        for name, made in self.made.items():
            made.append(rows[name])

    def entries(self, real_rows: RealRows) -> dict[str, Any]:
        """Distance by name, with what it was measured against. `real_rows` gives the rows of official networks."""
        return {name: self._entry(name, real_rows) for name in self.made}

    def _entry(self, name: str, real_rows: RealRows) -> dict[str, Any]:
        made, network = np.concatenate(self.made[name]), self.official.get(name)
        rows_of_a_clip = len(self.made[name][0])
        clips, real = self._clips("test"), "test clips, mixed split"
        if len(clips) * rows_of_a_clip <= made.shape[1]:  # too few for a covariance of full rank
            clips, real = self._clips(), "all clips, mixed split, training ones included"
        if len(clips) * rows_of_a_clip < FEWEST_REAL_CLIPS:
            raise ContractError(f"data/clips/{REFERENCE}: too few clips whose first frame was not animated; add videos")
        rows = real_rows(network, clips) if network else np.concatenate([self._codec_row(clip) for clip in clips])
        entry = {
            "distance": round(frechet_distance(made, rows), 4),
            "n": len(made),
            "pictures": len(self.pictures),
            "n_real": len(rows),
            "real": real,
        }
        return entry | ({"variant": network.variant, "sha256": network.sha256} if network else {})

    def _clips(self, subset: Subset | None = None) -> list[CuratedClip]:
        """Real clips; none whose first frame was animated, and no more than `MOST_REAL_CLIPS`."""
        clips = [clip for clip in curated_clips(REFERENCE, subset) if clip.clip_id not in self.pictures]
        if len(clips) > MOST_REAL_CLIPS:
            rng = np.random.default_rng(self.params.evaluate.seed)
            clips = [clips[i] for i in rng.choice(len(clips), MOST_REAL_CLIPS, replace=False)]
        return clips

    def _codec_row(self, clip: CuratedClip) -> np.ndarray:
        latents = read_latents(latents_folder(REFERENCE).path(clip.clip_id))[0][: self.params.video.frames]
        return codec_features(latents.transpose(0, 1)).numpy()[None]


def encoded(foundation: Foundation, video: np.ndarray) -> torch.Tensor:
    """Latents (T, C, h, w) of frames (T, H, W, 3) uint8."""
    return foundation.encode_images(torch.from_numpy(video).movedim(-1, 1) / 255)

"""Features for Frechet distances, by name. A distance is called FID or FVD only with the official networks.

fid  frames in pytorch-fid's port of the Inception network of 2015, its last pooling layer, 2048 numbers
fvd  videos in the I3D network trained on Kinetics-400 that StyleGAN-V ships as TorchScript; it resizes and scales by
     itself; its logits, 400 numbers. Between 16 videos of zeros and 16 of ones (15 x 64 x 64) FVD is about 131.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_fid import inception
from torch import Tensor, nn

from models.errors import UserError

FRAMES_AT_ONCE = 32
FVD_VARIANT = "I3D Kinetics-400 logits, TorchScript of StyleGAN-V"
FID_VARIANT = "Inception 2015 pool 3, weights of pytorch-fid"
LEAST_FRAMES = 10  # frames of a video, at least: I3D pools shorter ones to nothing
SOURCES = {
    "inception": inception.FID_WEIGHTS_URL,
    "i3d": "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt",
}


class WeightsUnusable(UserError):
    """Weights of a feature network are missing or belong to another network. The message names file, key and remedy."""


class Features(Protocol):
    variant: str
    sha256: str

    def __call__(self, videos: Iterable[np.ndarray]) -> np.ndarray:
        """Features (n, D) of videos (T, H, W, 3) uint8: one row for each video, or for each frame."""


def codec_features(latents: Tensor) -> Tensor:
    """`codec`: features (2 C,) for look and motion of a video, from its VAE latents (C, T, h, w).

    They are the mean over the video and the mean absolute change from frame to frame, per channel.
    """
    return torch.cat([latents.mean((1, 2, 3)), latents.diff(dim=1).abs().mean((1, 2, 3))])


class InceptionFeatures:
    """FID's features of frames."""

    variant = FID_VARIANT

    def __init__(self, weights: str | Path):
        self.sha256 = sha256_of_weights("inception", weights)
        self.device = _device()
        network: Any = _inception(Path(weights))
        self.network = network.to(self.device, memory_format=torch.channels_last)  # a third faster on a CPU

    @torch.no_grad()
    def __call__(self, videos: Iterable[np.ndarray]) -> np.ndarray:
        """See `Features`: one row of 2048 for each frame."""
        rows = []
        for video in videos:
            for frames in torch.from_numpy(video).movedim(-1, 1).split(FRAMES_AT_ONCE):
                given = (frames.to(self.device).float() / 255).contiguous(memory_format=torch.channels_last)
                rows.append(self.network(given)[0].flatten(1).double().cpu().numpy())
        return np.concatenate(rows)


class I3DFeatures:
    """FVD's features of videos."""

    variant = FVD_VARIANT

    def __init__(self, weights: str | Path):
        self.sha256 = sha256_of_weights("i3d", weights)
        self.device = _device()
        try:
            self.network = torch.jit.load(str(weights), map_location=self.device).eval()
        except RuntimeError as error:
            raise _unusable("i3d", weights, "is no TorchScript") from error

    @torch.no_grad()
    def __call__(self, videos: Iterable[np.ndarray]) -> np.ndarray:
        """See `Features`: one row of 400 for each video.

        Raises:
            ValueError: a video has fewer than 10 frames.
        """
        rows = []
        for video in videos:
            if len(video) < LEAST_FRAMES:
                raise ValueError(f"FVD needs videos of at least {LEAST_FRAMES} frames, got {len(video)}")
            clip = torch.from_numpy(video).permute(3, 0, 1, 2)[None].float().to(self.device)
            rows.append(self.network(clip, rescale=True, resize=True, return_features=True).double().cpu().numpy())
        return np.concatenate(rows)


def _inception(weights: Path) -> nn.Module:
    """pytorch-fid's network with weights from a file. Its constructor calls a function of its module to load them."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        fetch, inception.load_state_dict_from_url = inception.load_state_dict_from_url, lambda *_, **__: state
        try:
            return inception.InceptionV3().eval()
        finally:
            inception.load_state_dict_from_url = fetch
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise _unusable("inception", weights, f"does not hold FID's Inception network ({why})") from error


def sha256_of_weights(name: str, weights: str | Path) -> str:
    """SHA-256 of the file of a feature network's weights. `name`: the key of `SOURCES`.

    Raises:
        WeightsUnusable: the file cannot be read.
    """
    try:
        with open(weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unusable(name, weights, f"cannot be read ({error.strerror})") from error


def _unusable(name: str, weights: str | Path, problem: str) -> WeightsUnusable:
    return WeightsUnusable(
        f"evaluate.{name}_weights: {weights} {problem}. Put {SOURCES[name]} there, or set evaluate.features to codec"
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

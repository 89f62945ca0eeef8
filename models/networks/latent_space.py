"""How VAE latents become the diffusion model's variable: `latent_space.json` of a foundation."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

FILE_NAME = "latent_space.json"


@dataclass(frozen=True)
class LatentSpace:
    """x = (z - w z_first - mean) / std, with z the VAE's scaled latents.

    w = 0, mean = 0, std = 1 for SD 1.5; w = 1 where the base predicts the residual to the first frame.
    """

    mean: float = 0.0
    std: float = 1.0
    first_frame_weight: float = 0.0

    def to_model(self, z: Tensor, z_first: Tensor) -> Tensor:
        """(B, C, T, h, w) latents and (B, C, h, w) first-frame latents to the diffusion variable."""
        return (z - self.first_frame_weight * z_first[:, :, None] - self.mean) / self.std

    def from_model(self, x: Tensor, z_first: Tensor) -> Tensor:
        """The inverse of `to_model`."""
        return x * self.std + self.mean + self.first_frame_weight * z_first[:, :, None]

    @classmethod
    def load(cls, folder: str | Path) -> "LatentSpace":
        """Read `folder/latent_space.json`; a folder without one is SD 1.5's own space."""
        path = Path(folder) / FILE_NAME
        return cls(**json.loads(path.read_text())) if path.is_file() else cls()

    def save(self, folder: str | Path) -> None:
        (Path(folder) / FILE_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")

"""Networks in the shape of FID's and FVD's, with random weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn


class Detector(nn.Module):
    """Answers as I3D's TorchScript does, with 400 numbers that say what it was given."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert rescale and resize and return_features
        assert x.dim() == 5 and x.size(1) == 3 and x.max() > 1
        return torch.cat([x.mean([1, 2, 3, 4])[:, None], x[:, 0].mean([1, 2, 3])[:, None], x.new_zeros(len(x), 398)], 1)


def write_i3d(path: Path) -> None:
    """The file of FVD's network."""
    torch.jit.script(Detector()).save(str(path))


def write_inception(path: Path) -> None:
    """The file of FID's network."""
    from pytorch_fid import inception

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(nn.Module, "load_state_dict", lambda self, state: torch.save(self.state_dict(), path))
        inception.fid_inception_v3()

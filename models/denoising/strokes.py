"""Strokes as the networks take them: point tracks of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Strokes(NamedTuple):
    """The tracks of a batch of videos.

    tracks: (B, T, N, 2) float, pixels of the model's frame, x right, y down. visibility: (B, T, N) bool. N = 0 is no
    stroke.
    """

    tracks: Tensor
    visibility: Tensor

    def to(self, device: torch.device | str) -> "Strokes":
        """The same strokes on a device."""
        return Strokes(self.tracks.to(device), self.visibility.to(device))

    @classmethod
    def visible(cls, tracks: Tensor) -> "Strokes":
        """Tracks (B, T, N, 2) that are seen in every frame."""
        return cls(tracks, torch.ones(tracks.shape[:3], dtype=torch.bool, device=tracks.device))

    @classmethod
    def joined(cls, parts: Sequence["Strokes"]) -> "Strokes":
        """Strokes of several kinds on the same videos, side by side."""
        return cls(torch.cat([part.tracks for part in parts], 2), torch.cat([part.visibility for part in parts], 2))

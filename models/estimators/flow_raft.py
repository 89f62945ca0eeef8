"""Optical flow by RAFT (Teed & Deng, 2020), torchvision's networks; the large one is the paper's choice."""

from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights, raft_large, raft_small

from models.estimators import EstimatorUnavailable

MIN_SIDE = 128  # its correlation pyramid needs 16 cells of 8 pixels
PAIRS_AT_ONCE = 4


MODELS: dict[str, tuple[Any, Any]] = {
    "large": (raft_large, Raft_Large_Weights.DEFAULT),
    "small": (raft_small, Raft_Small_Weights.DEFAULT),
}


def load(name: str, model: str, weights: str | None) -> "RAFTFlow":
    """Load the network `model` (large, small); `weights` is a file of torchvision's to use instead of the hub's.

    Raises:
        EstimatorUnavailable: the weights cannot be had, or are not those of the network.
    """
    network, published = MODELS[model]
    try:
        if weights is None:
            return RAFTFlow(network(weights=published))
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise _unavailable(weights, published, f"cannot be had ({str(error).partition(chr(10))[0]})") from error
    built = network()
    try:
        built.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise _unavailable(
            weights, published, f"are not those of torchvision's {model} RAFT, which clips.raft.model asks for"
        ) from error
    return RAFTFlow(built)


def _unavailable(weights: str | None, published: Any, problem: str) -> EstimatorUnavailable:
    return EstimatorUnavailable(
        f"clips.flow: raft: {weights or 'its weights'} {problem}. Name a copy of {published.url} in "
        "clips.raft.weights, or set clips.flow to dis"
    )


class RAFTFlow:
    def __init__(self, model: torch.nn.Module):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).eval()

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """See `FlowEstimator`. Frames are scaled to sides that are multiples of 8, and the flow back."""
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        height, width = video.shape[-2:]
        scale = max(1.0, MIN_SIDE / min(height, width))
        inner = [max(MIN_SIDE, round(side * scale / 8) * 8) for side in (height, width)]
        back = torch.tensor([width / inner[1], height / inner[0]], device=self.device).view(1, 2, 1, 1)
        flows = []
        for i in range(0, len(video) - 1, PAIRS_AT_ONCE):
            run = video[i : i + PAIRS_AT_ONCE + 1].to(self.device).float() / 127.5 - 1
            run = F.interpolate(run, inner, mode="bilinear", antialias=True)
            flow = self.model(run[:-1], run[1:])[-1] * back
            flows.append(F.interpolate(flow, (height, width), mode="bilinear", antialias=True).cpu())
        return torch.cat(flows).numpy()

"""Point tracks by CoTracker (Karaev et al., 2023), the paper's choice. Its licence is non-commercial."""

from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from models.estimators import EstimatorUnavailable
from models.geometry import inside_frame

REPOSITORY = "facebookresearch/co-tracker"


def load(name: str, model: str, weights: str | None) -> "CoTracker":
    """Load `model` (cotracker3_offline, cotracker2) from torch hub; `weights` is a checkpoint file to use instead."""
    try:
        predictor = torch.hub.load(REPOSITORY, model, pretrained=weights is None, trust_repo=True)
        if weights is not None:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            predictor.model.load_state_dict(state.get("model", state))
    except (OSError, ImportError, RuntimeError, UnpicklingError) as error:
        wanted = f"{weights} with the code of {REPOSITORY}" if weights else f"{REPOSITORY} {model}"
        why = str(error).partition("\n")[0]
        raise EstimatorUnavailable(
            f"tracks.estimator: cotracker: {wanted} cannot be loaded ({why}). Put the repository into "
            f"{torch.hub.get_dir()} and name the checkpoint in tracks.cotracker.weights, or set tracks.estimator to "
            "lucas_kanade"
        ) from error
    return CoTracker(predictor)


class CoTracker:
    def __init__(self, predictor: Any):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = predictor.to(self.device).eval()

    @torch.no_grad()
    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PointTracker`. A clip shorter than the model's window, which would give zeros, is held at its end."""
        missing = max(0, self.predictor.model.window_len - len(frames))
        held = np.concatenate([frames, np.repeat(frames[-1:], missing, 0)])
        video = torch.from_numpy(held).permute(0, 3, 1, 2)[None].float().to(self.device)
        queries = torch.from_numpy(np.insert(points.astype(np.float32), 0, 0.0, axis=1))[None].to(self.device)
        tracks, visible = (x[0, : len(frames)].cpu().numpy() for x in self.predictor(video, queries=queries))
        height, width = frames.shape[1:3]
        return tracks.astype(np.float32), visible.astype(bool) & inside_frame(tracks, width, height)

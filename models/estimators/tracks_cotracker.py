"""Point tracks by CoTracker (Karaev et al., 2023), the paper's choice. Its licence is non-commercial."""

from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from models.estimators import EstimatorUnavailable
from models.geometry import inside_frame

REPOSITORY = "facebookresearch/co-tracker"
REVISION = "82e02e8029753ad4ef13cf06be7f4fc5facdda4d"  # the commit whose code is run
ANY_LENGTH = ("cotracker3_offline",)  # models that interpolate their time codes; others give zeros below their window


def load(name: str, model: str, weights: str | None) -> "CoTracker":
    """Load `model` (cotracker3_offline, cotracker2) from torch hub; `weights` is a checkpoint file to use instead.

    Raises:
        EstimatorUnavailable: the code or the weights cannot be had, or they do not fit each other.
    """
    try:
        predictor = torch.hub.load(
            f"{REPOSITORY}:{REVISION}", model, pretrained=weights is None, trust_repo=True, skip_validation=True
        )
        if weights is not None:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            predictor.model.load_state_dict(state.get("model", state))
    except (OSError, ImportError, RuntimeError, AttributeError, UnpicklingError) as error:
        wanted = f"{weights} with the code of {REPOSITORY}" if weights else f"{REPOSITORY} {model}"
        why = str(error).partition("\n")[0]
        folder = f"{torch.hub.get_dir()}/{REPOSITORY.replace('/', '_')}_{REVISION}"
        raise EstimatorUnavailable(
            f"tracks.estimator: cotracker: {wanted} cannot be loaded ({why}). Put commit {REVISION} of the repository "
            f"into the folder {folder}, name a checkpoint of {model} in tracks.cotracker.weights, or set "
            "tracks.estimator to lucas_kanade"
        ) from error
    return CoTracker(predictor, 1 if model in ANY_LENGTH else predictor.model.window_len)


class CoTracker:
    """CoTracker's predictor; clips of fewer than `shortest` frames are held at their end until they have so many."""

    def __init__(self, predictor: Any, shortest: int):
        self.shortest = shortest
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = predictor.to(self.device).eval()

    @torch.no_grad()
    def __call__(self, frames: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PointTracker`."""
        missing = max(0, self.shortest - len(frames))
        held = np.concatenate([frames, np.repeat(frames[-1:], missing, 0)])
        video = torch.from_numpy(held).permute(0, 3, 1, 2)[None].float().to(self.device)
        queries = torch.from_numpy(np.insert(points.astype(np.float32), 0, 0.0, axis=1))[None].to(self.device)
        tracks, visible = (x[0, : len(frames)].cpu().numpy() for x in self.predictor(video, queries=queries))
        height, width = frames.shape[1:3]
        return tracks.astype(np.float32), visible.astype(bool) & inside_frame(tracks, width, height)

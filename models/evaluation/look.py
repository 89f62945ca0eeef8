"""The look of a video: fidelity of the first frame, and drift of colour and detail."""

import numpy as np
import torch

from models.torchvision_ops import prepare_torchvision


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images of one shape; infinite if they are equal."""
    error = np.square(image.astype(float) - reference.astype(float)).mean()
    return float(np.inf) if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004) of two (H, W, 3) uint8 images: 1 if they are equal."""
    prepare_torchvision()  # torchmetrics imports torchvision
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (torch.from_numpy(picture).movedim(-1, 0)[None] / 255 for picture in (image, reference))
    similarity = structural_similarity_index_measure(a, b, data_range=1.0)
    assert isinstance(similarity, torch.Tensor)
    return float(similarity)


def colour_drift(frames: np.ndarray) -> np.ndarray:
    """Distance (T,) of each frame's mean colour from frame 0's, in grey levels, mean over the channels.

    Args:
        frames: (T, H, W, 3) uint8.
    """
    means = frames.mean((1, 2))
    return np.abs(means - means[0]).mean(-1)


def detail_kept(frames: np.ndarray) -> np.ndarray:
    """Mean gradient of each frame divided by that of frame 0, (T,): 1 keeps all detail, less is blurred.

    Args:
        frames: (T, H, W, 3) uint8.
    """
    grey = frames.astype(float).mean(-1)
    gradient = np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))
    return gradient / max(gradient[0], 1e-6)

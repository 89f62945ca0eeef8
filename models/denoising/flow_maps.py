"""Tracks to flow maps (Sec 2.2): the one function used for training, sampling, serving and drawing."""

import torch
from torch import Tensor

BLUR_KERNEL, BLUR_SIGMA, BLUR_WIDTH = 99, 10.0, 384


def flow_map(tracks: Tensor, visibility: Tensor, height: int, width: int) -> Tensor:
    """Blurred flow map of point tracks.

    Args:
        tracks: (B, T, N, 2) float, pixels of the model's frame, x right, y down.
        visibility: (B, T, N) bool; a step with an invisible end writes no displacement.
        height, width: of the model's frame.

    Returns:
        (B, 2, T, H, W): pixels per frame, channel 0 = dx, 1 = dy, frame 0 zero.
    """
    return blur(rasterise(tracks, visibility, height, width))


def rasterise(tracks: Tensor, visibility: Tensor, height: int, width: int) -> Tensor:
    """Sparse flow map (B, 2, T, H, W): frame t holds the displacement t-1 -> t at the truncated pixel where it starts.

    If several tracks start on one pixel, the last one wins. Steps that start outside the frame are left out.
    """
    b, t, n, _ = tracks.shape
    flow = tracks.new_zeros(b, 2, t, height * width)
    if n == 0:
        return flow.view(b, 2, t, height, width)
    start, displacement = tracks[:, :-1], tracks[:, 1:] - tracks[:, :-1]
    x, y = start.trunc().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    valid = inside & visibility[:, :-1] & visibility[:, 1:] & displacement.isfinite().all(-1)
    pixel = (y * width + x).where(valid, 0)
    order = torch.arange(n, device=tracks.device).expand_as(pixel).where(valid, -1)
    last = torch.full((b, t - 1, height * width), -1, device=tracks.device)
    last.scatter_reduce_(2, pixel, order, "amax")
    winner = last.clamp(min=0)
    for axis in range(2):
        flow[:, axis, 1:] = displacement[..., axis].gather(2, winner).where(last >= 0, 0)
    return flow.view(b, 2, t, height, width)


def blur(flow: Tensor) -> Tensor:
    """Separable Gaussian over the last two axes, sum 1, reflect-101 border: 99 px, sigma 10 at a width of 384.

    It is one matrix product per axis. On a CPU this takes a quarter of the time of a convolution.
    """
    height, width = flow.shape[-2:]
    scale = width / BLUR_WIDTH
    radius = min(round(BLUR_KERNEL * scale / 2 - 0.5), height - 1, width - 1)
    rows, columns = (_blur_matrix(size, radius, BLUR_SIGMA * scale).to(flow) for size in (height, width))
    return rows @ flow @ columns.T


def _blur_matrix(size: int, radius: int, sigma: float) -> Tensor:
    """(size, size): row i holds the weights of all places in the blurred place i; radius < size."""
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(offset.double() ** 2) / (2 * sigma**2))
    place = torch.arange(size)[:, None] + offset
    mirrored = size - 1 - (size - 1 - place.abs()).abs()
    weights = (kernel / kernel.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, mirrored, weights)

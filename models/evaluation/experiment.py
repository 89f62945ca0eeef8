"""The compared methods, and the videos that each method makes of pictures and trajectories (Sec 3.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.denoising.strokes import Strokes
from models.modes import Lora, SamplingMode
from models.pixels import to_uint8
from models.sampling.pipeline import ImageConductorPipeline


@dataclass(frozen=True)
class Method:
    """A row of the table: how the sampler is run. `guidance` is l_trajs of Eq. 5; None is plain guidance."""

    name: str
    mode: SamplingMode
    guidance: float | None = None


PLAIN = (
    Method("no_control", "none"),
    Method("controlnet", "controlnet"),
    Method("camera_lora", "camera"),
    Method("object_lora", "object"),
)
BOTH = Method("both", "both")  # object strokes and camera strokes in one video
START = Method("start", "controlnet")  # the motion ControlNet that training began with


def guided(trajectory_guidance_scales: list[float]) -> list[Method]:
    """The object LoRA under Eq. 5 with each scale."""
    return [Method(f"object_lora_{scale}", "object", scale) for scale in trajectory_guidance_scales]


@dataclass(frozen=True)
class Case:
    """One picture with one trajectory.

    first_frame (H, W, 3) uint8; first_latents (C, h, w); prompt_embeds (L, D); wanted (T, N, 2) pixels of the frame;
    number: seeds the noise; background (M, 2): points of the picture that belong to the background and stay clear of
    the strokes, and body (K, 2): points of its object, if known; camera (T, M, 2): in mode `both`, what the camera's
    strokes want, beside `wanted` for the objects.
    """

    picture: str
    trajectory: str
    first_frame: np.ndarray
    first_latents: Tensor
    prompt_embeds: Tensor
    wanted: np.ndarray
    number: int
    background: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    body: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    camera: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 2), np.float32))

    @property
    def stroke(self) -> np.ndarray | None:
        """The common displacement (T, 2) in pixels of all strokes from their starts; None if they differ."""
        return common_shift(self.wanted)

    @property
    def camera_stroke(self) -> np.ndarray | None:
        """The common displacement (T, 2) of the camera's strokes in mode `both`; None if there is none."""
        return common_shift(self.camera) if self.camera.size else None


def batches(cases: Sequence[Case], size: int) -> Iterator[list[Case]]:
    """Cases that are sampled together: up to `size`, all with the same numbers of strokes."""
    by_strokes: dict[tuple[int, int], list[Case]] = {}
    for case in cases:
        by_strokes.setdefault((case.wanted.shape[1], case.camera.shape[1]), []).append(case)
    for group in by_strokes.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def generate_cases(
    pipe: ImageConductorPipeline, cases: Sequence[Case], method: Method, seed: int, batch_size: int
) -> Iterator[tuple[Case, np.ndarray]]:
    """Yield each case with its video (T, H, W, 3) uint8. A case has the same noise under every method."""
    with tqdm(total=len(cases), desc=f"evaluate {method.name}", unit="video") as bar:
        for batch in batches(cases, batch_size):
            for case, video in zip(batch, sample_batch(pipe, batch, method, seed), strict=True):
                bar.update()
                yield case, video


@torch.no_grad()
def sample_batch(pipe: ImageConductorPipeline, batch: Sequence[Case], method: Method, seed: int) -> np.ndarray:
    """Videos (B, T, H, W, 3) uint8 of one batch of `batches`. A case has the same noise under every method."""
    first = torch.stack([case.first_latents for case in batch])
    tracks: dict[Lora, list[np.ndarray]] = {"object": [case.wanted for case in batch]}
    if batch[0].camera.size:
        tracks["camera"] = [case.camera for case in batch]
    noise = torch.stack([_noise(case, seed) for case in batch])
    latents = pipe.sample_latents(
        first,
        torch.stack([case.prompt_embeds for case in batch]),
        {kind: Strokes.visible(torch.from_numpy(np.stack(paths))) for kind, paths in tracks.items()},
        method.mode,
        latents=noise,
        negative_prompt_embeds=pipe.foundation.encode_text([""]),
        trajectory_guidance_scale=method.guidance,
    )
    return to_uint8(pipe.foundation.decode(latents))


def common_shift(paths: np.ndarray) -> np.ndarray | None:
    """The displacement (T, 2) that all of the paths (T, N, 2) share; None if they differ."""
    moved = paths - paths[:1]
    return moved[:, 0] if np.allclose(moved, moved[:, :1], atol=1e-2) else None


def _noise(case: Case, seed: int) -> Tensor:
    channels, height, width = case.first_latents.shape
    generator = torch.Generator().manual_seed(seed * 1_000_003 + case.number)
    return torch.randn(channels, len(case.wanted), height, width, generator=generator)

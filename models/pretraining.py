"""What the pocket foundation is pre-trained on: scenes as latents, their strokes, and pictures of them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.denoising.strokes import Strokes
from models.drawing import contact_sheet, draw_tracks, side_by_side
from models.estimators import load_tracker_of_generated
from models.geometry import Size, point_grid
from models.metrics import errors_of_videos
from models.modes import Precision
from models.networks.foundation import Foundation
from models.precision import DTYPES
from models.scenes import MAX_OBJECTS, Kind
from models.worlds import World

StrokeKind = Literal["dense", "sparse", "none"]
KINDS: tuple[Kind, ...] = ("camera", "object", "mixed")
TRACK_GRID = 16  # tracks along each side of the frame
RENDERED_AT_ONCE = 64  # scenes; more are faster and take more memory
MORE_STROKES = 4  # strokes added to those that name every motion, at most; more makes training strokes denser
ZOOM = 0.05  # log units; a faster zoom gets three strokes, because one stroke cannot tell it from a pan
PINNED_SHARE = 0.3  # share of the further strokes drawn regardless of motion; more teaches still strokes better


@dataclass
class SceneBatch:
    """A batch of scenes as latents, with their true motion.

    latents (B, C, T, h, w), scaled; tracks (B, T, N, 2) in pixels; visibility (B, T, N); parts (B, N): what each track
    moves with, 0 the scene, k a moving object; camera (B, 2): how far it pans (frame heights) and zooms (log units);
    objects: how many a scene has at most.
    """

    latents: Tensor
    tracks: Tensor
    visibility: Tensor
    parts: Tensor
    camera: Tensor
    captions: list[str]
    objects: int = MAX_OBJECTS

    def pick(self, index: Tensor) -> "SceneBatch":
        """The scenes at `index`."""
        return SceneBatch(
            self.latents[index],
            self.tracks[index],
            self.visibility[index],
            self.parts[index],
            self.camera[index],
            [self.captions[i] for i in index.tolist()],
            self.objects,
        )

    @classmethod
    def joined(cls, parts: "list[SceneBatch]") -> "SceneBatch":
        """Several batches as one."""
        tensors = ("latents", "tracks", "visibility", "parts", "camera")
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
        captions = [caption for part in parts for caption in part.captions]
        return cls(**joined, captions=captions, objects=parts[0].objects)


def make_pool(world: World, foundation: Foundation, seeds: range, size: Size, frames: int, device: str) -> SceneBatch:
    """Render and encode the scene of every seed, of all three kinds in turn. `size` is width and height in pixels."""
    grid = torch.from_numpy(point_grid(*size, TRACK_GRID))[None].to(device)
    parts = []
    for start in range(0, len(seeds), RENDERED_AT_ONCE):
        some = list(seeds[start : start + RENDERED_AT_ONCE])
        kinds = [KINDS[seed % len(KINDS)] for seed in some]
        scenes = world.sample(kinds, frames, some, size[1], world.objects).to(device)
        video = world.render(scenes, *size)
        latents = foundation.encode_images(video.flatten(0, 1)).unflatten(0, video.shape[:2]).transpose(1, 2)
        points = grid.expand(len(some), -1, -1)
        tracks, visibility = world.true_tracks(scenes, points, *size)
        reach = scenes.camera.abs().amax(1)  # pan x, pan y, log zoom, roll
        camera = torch.stack([reach[:, :2].amax(1), reach[:, 2]], 1)
        moving = world.moving_parts(scenes, points, *size)
        captions = world.captions(scenes)
        parts.append(SceneBatch(latents.contiguous(), tracks, visibility, moving, camera, captions, world.objects))
    return SceneBatch.joined(parts)


def choose_strokes(batch: SceneBatch, kind: StrokeKind, generator: torch.Generator) -> Strokes | None:
    """The strokes of a batch: all tracks (`dense`), no stroke (`none`, gives None), or a few (`sparse`).

    Sparse: every moving object, and the camera if it moves, gets a stroke; a zoom gets two more. Half of the items get
    up to four more, drawn by motion intensity (Sec 2.2). The model can then learn that whatever has no stroke is still;
    otherwise it would predict a blurred average of all possible motions. Unused places are invisible.
    """
    tracks, visibility = batch.tracks, batch.visibility
    if kind == "none":
        return None
    if kind == "dense":
        return Strokes(tracks, visibility)
    b, t = tracks.shape[:2]
    usable = (visibility[:, 0] & visibility[:, 1]).float()
    part = torch.arange(batch.objects + 1, device=tracks.device)
    within = usable[:, None] * (batch.parts[:, None] == part[:, None])  # (B, parts, N)
    first = torch.multinomial(within.flatten(0, 1) + 1e-9, 1, generator=generator).view(b, -1)
    needed = within.any(2)
    needed[:, 0] &= batch.camera.amax(1) > 0
    step = (tracks[:, 1:] - tracks[:, :-1]).norm(dim=-1) * (visibility[:, 1:] & visibility[:, :-1])
    intensity = step.sum(1) + 1e-6
    weight = (1 - PINNED_SHARE) * intensity / intensity.sum(1, keepdim=True) + PINNED_SHARE / intensity.shape[1]
    more = torch.multinomial(weight * usable + 1e-12, MORE_STROKES, generator=generator)
    count = torch.randint(-MORE_STROKES + 1, MORE_STROKES + 1, (b, 1), generator=generator, device=tracks.device)
    count = torch.where(batch.camera[:, 1:] > ZOOM, count.clamp(min=2), count)
    used = torch.cat([needed, torch.arange(MORE_STROKES, device=tracks.device) < count], 1)
    chosen = torch.cat([first, more], 1)  # (B, objects + 1 + MORE_STROKES)
    index = chosen[:, None].expand(b, t, chosen.shape[1])
    picked = tracks.gather(2, index[..., None].expand(-1, -1, -1, 2))
    return Strokes(picked, visibility.gather(2, index) & used[:, None])


def motion_error(videos: np.ndarray, batch: SceneBatch) -> float:
    """Distance of the tracks in videos (B, T, H, W, 3) uint8 from the true ones, divided by that of a still copy.

    All points of the scenes' grid count that are visible in every frame. Lucas-Kanade follows them.
    """
    truth, seen = batch.tracks.cpu().numpy(), batch.visibility.all(1).cpu().numpy()
    pairs = [(video, truth[i][:, seen[i]]) for i, video in enumerate(videos) if seen[i].any()]
    follow = load_tracker_of_generated("lucas_kanade")
    error, still = errors_of_videos([video for video, _ in pairs], [wanted for _, wanted in pairs], follow)
    return error / max(still, 1e-6)


def sample_sheet(real: np.ndarray, made: np.ndarray, strokes: Strokes) -> np.ndarray:
    """A row for each scene: frames through the codec and frames generated (B, T, H, W, 3), under the strokes of both.

    Args:
        strokes: of `choose_strokes`, for at least as many scenes.
    """
    rows = []
    for scene, videos in enumerate(zip(real, made, strict=True)):
        drawn = strokes.tracks[scene, :, strokes.visibility[scene].any(0)].cpu().numpy()
        rows.append(side_by_side([draw_tracks(video, drawn, scale=2) for video in videos], ["real", "generated"]))
    return contact_sheet(rows, columns=4)


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Autocast to bf16 or fp16 on a device; weights, their gradients and the optimiser keep float32.

    On a CPU, attention then multiplies its matrices one by one: its flash kernel is several times slower in bf16,
    backward above all.
    """
    with ExitStack() as stack:
        if precision != "no":
            stack.enter_context(torch.autocast(device.type, DTYPES[precision]))
            if device.type == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield

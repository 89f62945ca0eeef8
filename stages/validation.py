"""How well a network in training makes held-out clips move: the guard against the collapse that the field knows.

A ControlNet's loss hardly shows whether it is obeyed, so videos are made and their motion is measured.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler
from torch import Tensor

from models.conditions import motion_condition
from models.denoiser import denoise, first_frame_condition, image_residuals, motion_residuals, repeat_per_frame
from models.estimators import load_tracker_of_generated
from models.flow_maps import flow_map
from models.foundation import Foundation
from models.metrics import still_error, trajectory_error
from models.networks import MotionControlNet
from stages.contracts import curated_clips
from stages.params import Params, Split, Training
from stages.training_items import Clip, chosen_strokes, moves_as_one


class Validation:
    """The last held-out clips of a split (the evaluation takes the first ones), each with its first sparse draw.

    `single_stroke_share`: of the clips, those that have only the first stroke of it, where they move as one.
    """

    def __init__(self, split: Split, params: Params, settings: Training, single_stroke_share: float = 0.0):
        self.split, self.frames, self.seed = split, params.video.frames, settings.seed
        self.single_stroke_share = single_stroke_share
        self.sampler_steps = settings.validation.sampler_steps
        self._held_out = curated_clips(split, "eval")[-settings.validation.clips :]

    @cached_property
    def items(self) -> list[tuple[dict[str, Tensor], np.ndarray]]:
        """For each clip what its video is made from, and the tracks (T, N, 2) that are seen in all of its frames."""
        items = []
        for number, held_out in enumerate(self._held_out):
            clip = Clip.read(held_out, self.split)
            tracks, visibility = clip.tracks[: self.frames], clip.visibility[: self.frames]
            wanted = tracks[:, visibility.all(0)].numpy()
            if not wanted.shape[1]:
                continue
            draw = clip.draws[0].copy()
            if number < self.single_stroke_share * len(self._held_out) and moves_as_one(tracks, visibility):
                draw[1:] = -1
            strokes, shown = chosen_strokes(tracks, visibility, draw)
            generator = torch.Generator().manual_seed(1000 * self.seed + number)
            channels, h, w = clip.latents.shape[1:]
            made_from = {
                "first": clip.latents[0],
                "text": clip.text,
                "tracks": strokes,
                "visibility": shown,
                "noise": torch.randn(channels, self.frames, h, w, generator=generator),
            }
            items.append((made_from, wanted))
        return items

    def motion_error(
        self, foundation: Foundation, network: MotionControlNet, accelerator: Accelerator, batch_size: int
    ) -> float:
        """How far all tracks of the videos made are from the real ones, over how far a still copy's are.

        All tracks of a clip count, not the strokes alone, so what moves without being told to counts too. The free
        tracker follows them, whatever curation used: these numbers are only compared with each other.
        """
        follow = load_tracker_of_generated("lucas_kanade")
        mine = self.items[accelerator.process_index :: accelerator.num_processes]
        total = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(mine), batch_size):
            part = mine[start : start + batch_size]
            inputs = torch.utils.data.default_collate([made_from for made_from, _ in part])
            inputs = {name: value.to(accelerator.device) for name, value in inputs.items()}
            videos = sample(foundation, network, inputs, self.sampler_steps, accelerator.autocast)
            for video, (_, wanted) in zip(videos, part, strict=True):
                tracks, seen = follow(video, wanted[0])
                errors = trajectory_error(tracks, seen, wanted).px, still_error(wanted).px
                total += torch.tensor(errors, dtype=torch.float64)
        error, still = accelerator.reduce(total.float().to(accelerator.device), "sum").tolist()
        return error / max(still, 1e-6)


@torch.no_grad()
def sample(
    foundation: Foundation,
    network: MotionControlNet,
    inputs: dict[str, Tensor],
    steps: int,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> np.ndarray:
    """Videos (B, T, H, W, 3) uint8 by plain DDIM, without guidance, of a batch of `Validation.items`."""
    z_first, x = inputs["first"], inputs["noise"]
    frames = x.shape[2]
    height, width = (size * foundation.codec_factor for size in z_first.shape[-2:])
    strokes = inputs["tracks"], inputs["visibility"]
    condition = motion_condition(network.config, foundation.vae, flow_map(*strokes, height, width), *strokes, z_first)
    image_condition = first_frame_condition(z_first, frames)
    text = repeat_per_frame(inputs["text"], frames)
    scheduler = DDIMScheduler.from_config(foundation.scheduler.config)
    scheduler.set_timesteps(steps, device=x.device)
    for t in scheduler.timesteps:
        timesteps = t.expand(len(x))
        with autocast():
            image = image_residuals(foundation.image_controlnet, timesteps, text, *image_condition)
            residuals = image + motion_residuals(network, timesteps, text, condition)
            prediction = denoise(foundation.unet, x, timesteps, text, z_first, residuals)
        x = scheduler.step(prediction.float(), t, x).prev_sample
    videos = foundation.decode(foundation.latent_space.from_model(x, z_first))
    return (255 * videos).round().byte().movedim(2, -1).cpu().numpy()

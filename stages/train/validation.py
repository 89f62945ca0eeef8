"""Validation: moves clips of the subset `validation` during training and measures their motion error.

The best weights are kept, because a ControlNet's loss hardly shows whether it follows its condition.
"""

from functools import cached_property

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from models.denoising.loss import TrainingBatch
from models.denoising.strokes import Strokes
from models.estimators import load_tracker_of_generated
from models.lora.sets import Switch
from models.metrics import errors_of_videos
from models.modes import SamplingMode
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from models.pixels import to_uint8
from models.sampling.branches import Guidance
from models.sampling.guided_training import sample_with_guidance
from stages.data.curated import curated_clips
from stages.params import Params, Split, TrainingParams
from stages.train.items import EncodedClip, chosen_strokes, moves_as_one

FRAMES_SHOWN = 8  # about so many of a video's frames are in its picture; more make the picture wider


class Validation:
    """The first clips of a split's subset `validation`, each with its first sparse draw. No test clip is among them.

    `mode`: mode of the sampler, which decides the branches of guidance.
    `single_stroke_share`: share of the clips that get only the first stroke of the draw, if they move as one.
    `shown`: frames (H, W, 3) uint8 side by side, of the first video that this process measured last.
    """

    def __init__(
        self,
        split: Split,
        params: Params,
        settings: TrainingParams,
        mode: SamplingMode,
        single_stroke_share: float = 0.0,
    ):
        given = settings.validation.guidance
        self.guidance = Guidance(mode, given.scale, given.trajectory_scale, given.rescale)
        self.split, self.frames, self.seed = split, params.video.frames, settings.seed
        self.single_stroke_share = single_stroke_share
        self.sampler_steps = settings.validation.sampler_steps
        self.shown: np.ndarray | None = None
        self._clips = curated_clips(split, "validation")[: settings.validation.clips]

    @cached_property
    def items(self) -> list[tuple[dict[str, Tensor], np.ndarray]]:
        """For each clip: the inputs of its video, and the tracks (T, N, 2) that are visible in all of its frames."""
        items = []
        for number, chosen in enumerate(self._clips):
            clip = EncodedClip.read(chosen, self.split)
            tracks, visibility = clip.tracks[: self.frames], clip.visibility[: self.frames]
            wanted = tracks[:, visibility.all(0)].numpy()
            if not wanted.shape[1]:
                continue
            draw = clip.draws[0].copy()
            if number < self.single_stroke_share * len(self._clips) and moves_as_one(tracks, visibility):
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
        self,
        foundation: Foundation,
        network: MotionControlNet,
        switch: Switch,
        accelerator: Accelerator,
        batch_size: int,
    ) -> float:
        """Distance of all tracks in the generated videos from the real ones, divided by the distance of a still copy.

        All tracks of a clip count and not only the strokes, so motion that nobody asked for counts too. Lucas-Kanade
        follows them, whichever tracker curation used: these numbers are only compared with each other.

        Args:
            switch: makes the network what a branch of the guidance needs.
        """
        follow = load_tracker_of_generated("lucas_kanade")
        mine = self.items[accelerator.process_index :: accelerator.num_processes]
        null = foundation.encode_text([""])
        total = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(mine), batch_size):
            part = mine[start : start + batch_size]
            inputs = torch.utils.data.default_collate([made_from for made_from, _ in part])
            inputs = {name: value.to(accelerator.device) for name, value in inputs.items()}
            made = TrainingBatch(
                inputs["first"][:, :, None],
                inputs["text"],
                Strokes(inputs["tracks"], inputs["visibility"]),
                inputs["noise"],
                inputs["noise"].new_zeros(len(part)),
            )
            latents = sample_with_guidance(
                foundation, network, switch, made, null, self.guidance, self.sampler_steps, accelerator.autocast
            )
            videos = to_uint8(foundation.decode(latents))
            if start == 0:
                self.shown = np.concatenate(list(videos[0, :: max(1, self.frames // FRAMES_SHOWN)]), 1)
            total += torch.tensor(
                errors_of_videos(list(videos), [wanted for _, wanted in part], follow), dtype=torch.float64
            )
        error, still = accelerator.reduce(total.float().to(accelerator.device), "sum").tolist()
        return error / max(still, 1e-6)

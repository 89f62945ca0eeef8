"""What the three training stages share (Sec 2.4): items, loss, loop, checkpoints, curves.

Everything random is drawn per item from the stage's seed, so a run that was interrupted, or that has more processes,
sees the same items with the same noise.
"""

import csv
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from models.conditions import motion_condition
from models.denoiser import denoise, first_frame_condition, image_residuals, motion_residuals, repeat_per_frame
from models.diffusion import diffusion_loss, draw_timesteps, training_target
from models.flow_maps import flow_map
from models.foundation import Foundation, FoundationError
from models.networks import MotionControlNet
from stages.contracts import ContractError, curated_clips, read_draws, read_tracks
from stages.items import weight_files
from stages.latents import latents_folder, read_latents
from stages.memory import keep_freed_memory
from stages.params import Params, ParamsError, Split, Training, load_params
from stages.tracking import StageRun, stage_run

FOUNDATION = Path("artifacts/foundation")
WARMUP_SHARE = 0.05
Strokes = Literal["dense", "sparse", "single"]


@dataclass(frozen=True)
class Clip:
    """One clip in memory: latents (T, C, h, w), text (L, D), tracks (T, N, 2), visibility (T, N), draws (D, n)."""

    latents: Tensor
    text: Tensor
    tracks: Tensor
    visibility: Tensor
    draws: np.ndarray


class TrainingItems(Dataset):
    """Item i of a stage: a random run of frames of some clip, with its strokes, noise and the seed it came from."""

    def __init__(self, split: Split, params: Params, settings: Training, strokes: Callable[[int], Strokes]):
        self.clips = curated_clips(split, "train")
        if not self.clips:
            raise ContractError(
                f"data/clips/{split}: no clip to train on; add videos or lower clips.drop_share.{split}"
            )
        self.folder = latents_folder(split)
        self.frames, self.seed, self.strokes = params.video.frames, settings.seed, strokes
        self._cached: dict[int, Clip] = {}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        epoch, place = divmod(index, len(self.clips))
        clip = self._clip(int(np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.clips))[place]))
        start = int(rng.integers(0, len(clip.latents) - self.frames + 1))
        run = slice(start, start + self.frames)
        latents = clip.latents[run].transpose(0, 1).contiguous()
        tracks, visibility = clip.tracks[run], clip.visibility[run]
        strokes = self.strokes(index)
        if strokes != "dense":
            chosen = torch.from_numpy(clip.draws[rng.integers(0, len(clip.draws))]).long()
            if strokes == "single":
                chosen[1:] = -1
            tracks, visibility = tracks[:, chosen], visibility[:, chosen] & (chosen >= 0)
        generator = torch.Generator().manual_seed(int(rng.integers(0, 2**62)))
        return {
            "latents": latents,
            "text": clip.text,
            "tracks": tracks,
            "visibility": visibility,
            "noise": torch.randn(latents.shape, generator=generator),
            "u": torch.rand((), generator=generator),
        }

    def _clip(self, number: int) -> Clip:
        if number not in self._cached:
            clip = self.clips[number]
            latents, text = read_latents(self.folder.path(clip.clip_id))
            tracks, visibility = (torch.from_numpy(part) for part in read_tracks(clip.tracks))
            self._cached[number] = Clip(latents, text, tracks, visibility, read_draws(clip.draws))
        return self._cached[number]


def denoising_loss(
    foundation: Foundation, network: MotionControlNet, config: MotionControlNet, items: dict[str, Tensor], power: float
) -> Tensor:
    """Eq. 1 and Eq. 3: || eps - eps_theta(z_t, t, c_txt, c_img, c_trajs) ||^2 for a batch of training items.

    `network` is the motion ControlNet, perhaps wrapped for several processes; `config` is the bare one.
    """
    latents, frames = items["latents"], items["latents"].shape[2]
    z_first = latents[:, :, 0]
    x0 = foundation.latent_space.to_model(latents, z_first)
    timesteps = draw_timesteps(foundation.scheduler, items["u"], power)
    x_t = foundation.scheduler.add_noise(x0, items["noise"], timesteps)
    text = repeat_per_frame(items["text"], frames)
    height, width = (size * foundation.codec_factor for size in latents.shape[-2:])
    flow = flow_map(items["tracks"], items["visibility"], height, width)
    condition = motion_condition(config.config, foundation.vae, flow, items["tracks"], items["visibility"], z_first)
    with torch.no_grad():
        image = image_residuals(foundation.image_controlnet, timesteps, text, *first_frame_condition(z_first, frames))
    residuals = image + motion_residuals(network, timesteps, text, condition)
    prediction = denoise(foundation.unet, x_t, timesteps, text, z_first, residuals)
    return diffusion_loss(prediction, training_target(foundation.scheduler, x0, items["noise"], timesteps))


@dataclass
class Job:
    """One training stage: what learns, on which items, for how long."""

    stage: str
    settings: Training
    steps: int
    network: MotionControlNet
    parameters: list[nn.Parameter]
    items: TrainingItems
    extra_loss: Callable[[], dict[str, Tensor]] = dict  # named, already weighted terms beside the denoising loss


def run_training_stage(stage: str, output: Path, run: Callable[[Params, StageRun], None]) -> None:
    """The command of a training stage: an MLflow run with the curve and the weights' hash, or one line of error."""
    source = None
    try:
        params = load_params()
        source = getattr(params, stage).source
        with stage_run(stage, params) as tracker:
            if source is None:
                run(params, tracker)
                tracker.artifact(output / "loss.csv")
            else:
                adopt(Path(source), output)
            tracker.weights(output)
    except FileNotFoundError as error:
        sys.exit(f"{stage}: params.yaml: {stage}.source: {error}" if source else f"{stage}: {error}")
    except (ParamsError, ContractError, FoundationError) as error:
        sys.exit(f"{stage}: {error}")


def adopt(source: Path, output: Path) -> None:
    """Take weights and config of a folder in place of training; FileNotFoundError if it has none."""
    files = weight_files(source)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, output / path.name)


def train(job: Job, foundation: Foundation, output: Path, run: StageRun) -> None:
    """Optimise `job.parameters` and leave them at their moving average; goes on from a checkpoint if there is one.

    Writes `output/loss.csv`. The checkpoint is kept outside of the output, keyed by everything that shapes the result,
    and removed at the end.
    """
    keep_freed_memory()
    settings = job.settings
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
    )
    foundation.to(accelerator.device)
    optimizer = torch.optim.AdamW(job.parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_scheduler(
        "cosine", optimizer, num_warmup_steps=round(WARMUP_SHARE * job.steps), num_training_steps=job.steps
    )
    ema = EMAModel(job.parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = Checkpoint(job, optimizer, schedule, ema)
    done, rows = checkpoint.load(accelerator.device)
    if done:
        tqdm.write(f"{job.stage}: goes on from step {done} of {job.steps}")
    rest = Subset(job.items, range(done * settings.batch_size, job.steps * settings.batch_size))
    network, optimizer, loader = accelerator.prepare(
        job.network.train(), optimizer, DataLoader(rest, settings.batch_size, shuffle=False)
    )
    ema.to(accelerator.device)
    bar = tqdm(loader, initial=done, total=job.steps, desc=job.stage, unit="step",
               disable=not accelerator.is_main_process)  # fmt: skip
    for step, items in enumerate(bar, start=done):
        with accelerator.autocast():
            losses = {"loss": denoising_loss(foundation, network, job.network, items, settings.timestep_power)}
        losses |= job.extra_loss()
        accelerator.backward(torch.stack(list(losses.values())).sum())
        accelerator.clip_grad_norm_(job.parameters, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(job.parameters)
        row = {name: accelerator.reduce(loss.detach(), "mean").item() for name, loss in losses.items()}
        rows.append({"step": step + 1, **row})
        run.metrics(row, step + 1)
        bar.set_postfix(loss=f"{np.mean([r['loss'] for r in rows[-50:]]):.4f}")
        if (step + 1) % settings.checkpoint_every == 0 and accelerator.is_main_process:
            checkpoint.save(step + 1, rows)
    ema.copy_to(job.parameters)
    job.network.eval()
    if accelerator.is_main_process:
        write_curve(output / "loss.csv", rows)
        checkpoint.remove()
    accelerator.free_memory()


class Checkpoint:
    """The state of a training run on disk: whole or absent, and found only by the run that it belongs to."""

    def __init__(self, job: Job, optimizer, schedule, ema: EMAModel):
        self.job, self.optimizer, self.schedule, self.ema = job, optimizer, schedule, ema
        self.folder = Path("checkpoints") / job.stage
        self.file = self.folder / f"{self._key()}.pt"

    def load(self, device: torch.device) -> tuple[int, list[dict]]:
        """Steps done and the curve so far; (0, []) if there is no checkpoint of this very run."""
        if not self.file.is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
            return 0, []
        state = torch.load(self.file, map_location=device, weights_only=True)
        with torch.no_grad():
            for parameter, saved in zip(self.job.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.ema.load_state_dict(state["ema"])
        return state["step"], state["rows"]

    def save(self, step: int, rows: list[dict]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".tmp")
        state = {
            "parameters": [parameter.detach().cpu() for parameter in self.job.parameters],
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema.state_dict(),
            "step": step,
            "rows": rows,
        }
        torch.save(state, temporary)
        os.replace(temporary, self.file)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self) -> str:
        """A hash of settings, steps, start weights, items and code."""
        digest = hashlib.sha256()
        described = [self.job.settings.model_dump(mode="json"), self.job.steps, self.job.items.frames]
        digest.update(json.dumps([*described, [clip.clip_id for clip in self.job.items.clips]]).encode())
        for parameter in self.job.network.parameters():
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for path in [*(clip.draws for clip in self.job.items.clips), *_code(sys.modules)]:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:20]


def _code(modules: dict[str, ModuleType]) -> list[Path]:
    names = (
        "models.conditions",
        "models.denoiser",
        "models.diffusion",
        "models.flow_maps",
        "models.networks",
        __name__,
    )
    return [Path(str(modules[name].__file__)) for name in names]


def write_curve(path: Path, rows: list[dict]) -> None:
    """Loss curve as CSV, one row per step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["step", "loss"])
        writer.writeheader()
        writer.writerows(rows)

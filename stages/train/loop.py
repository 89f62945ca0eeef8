"""The training loop of the three training stages (Sec 2.4): loss, optimiser, validation, curves.

Every random draw comes from the stage's seed and the item's number. A run that was interrupted, or that has more
processes, therefore sees the same items with the same noise.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, PartialState
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from models.denoising.loss import TrainingBatch, denoising_loss
from models.denoising.strokes import Strokes
from models.lora.sets import Switch
from models.networks.foundation import Foundation
from models.networks.gradient_checkpointing import checkpoint_blocks
from models.networks.networks import MotionControlNet
from models.precision import DTYPES
from stages.params import ParamsError, TrainingParams
from stages.run.memory import keep_freed_memory
from stages.train.checkpoint import Checkpoint, Progress, training_key
from stages.train.items import TrainingItems
from stages.train.stopping import SavingTimes, StopSignal, TrainingStopped, stop_on_sigterm
from stages.train.validation import Validation

CHECKPOINTS = Path("checkpoints")
WARMUP_SHARE = 0.05


class Listener(Protocol):
    """What receives losses, errors and pictures while a stage trains: an MLflow run, or nothing."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...

    def picture(self, pixels: np.ndarray, name: str, folder: str) -> None: ...


def no_extra_loss() -> dict[str, Tensor]:
    """No loss beside the denoising loss."""
    return {}


@contextmanager
def as_trained() -> Iterator[Switch]:
    """The network is sampled as it is trained, and has no other state to switch to."""
    yield lambda lora: None


@dataclass
class Job:
    """One training run: network, trained parameters, items, number of steps, validation, and how to save the result."""

    stage: str
    settings: TrainingParams
    steps: int
    network: MotionControlNet
    parameters: list[nn.Parameter]
    items: TrainingItems
    validation: Validation
    save: Callable[[], None]
    shaped_by: Sequence[str] = ()  # see `checkpoint.shaping`
    extra_loss: Callable[[], dict[str, Tensor]] = no_extra_loss  # named, already weighted, beside the denoising loss
    as_sampled: Callable[[], AbstractContextManager[Switch]] = as_trained  # makes the network what is sampled
    patient_until: int = 0  # step from which early stopping counts validations without progress


def train(job: Job, foundation: Foundation, output: Path, run: Listener) -> None:
    """Train `job.parameters`, set them to the moving average with the lowest validation error, and save them.

    See `_train`. On SIGTERM, a checkpoint is written after the step under way.

    Raises:
        TrainingStopped: SIGTERM came; called again, this goes on from the checkpoint.
    """
    with stop_on_sigterm() as stop:
        _train(job, foundation, output, run, stop)


def _train(job: Job, foundation: Foundation, output: Path, run: Listener, stop: StopSignal) -> None:
    """Resumes from a checkpoint if there is one. The checkpoint lies outside of the output, its name is a hash of
    everything that shapes the result, and it is removed at the end. Writes `output/loss.csv` (a row per step) and
    `output/validation.csv`.
    """
    keep_freed_memory()
    settings = job.settings
    on_cpu = not torch.cuda.is_available()
    passes, rows = division(settings, PartialState(cpu=on_cpu).num_processes)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=passes,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
    )
    main = accelerator.is_main_process
    place_frozen(foundation, accelerator.device, DTYPES[settings.mixed_precision])
    optimizer = torch.optim.AdamW(job.parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_scheduler(
        "cosine", optimizer, num_warmup_steps=round(WARMUP_SHARE * job.steps), num_training_steps=job.steps
    )
    ema = EMAModel(job.parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
    states = {"optimizer": optimizer, "schedule": schedule, "ema": ema}
    if accelerator.scaler is not None:
        states["scaler"] = accelerator.scaler
    key = training_key(settings, job.steps, job.network, job.items, job.shaped_by)
    checkpoint = Checkpoint(CHECKPOINTS / job.stage / f"{key}.pt", job.parameters, states)
    progress = Progress.of(checkpoint.load(accelerator.device))
    accelerator.wait_for_everyone()
    if main and progress.step:
        tqdm.write(f"{job.stage}: goes on from step {progress.step} of {job.steps}")
    elif main:
        checkpoint.remove()
    if settings.gradient_checkpointing:
        checkpoint_blocks(foundation.unet)
        checkpoint_blocks(job.network)
    rest = Subset(job.items, range(progress.step * settings.batch_size, job.steps * settings.batch_size))
    network, optimizer, loader = accelerator.prepare(
        job.network.train(), optimizer, DataLoader(rest, settings.batch_size // passes, shuffle=False)
    )
    ema.to(accelerator.device)
    null = foundation.encode_text([""]).to(accelerator.device)
    saving = SavingTimes(settings.checkpoint_every, settings.checkpoint_every_minutes)
    bar = tqdm(initial=progress.step, total=job.steps, desc=job.stage, unit="step", disable=not main)
    parts: list[dict[str, float]] = []
    for items in loader:
        if progress.out_of_patience(settings.validation.patience, job.patient_until):
            break
        with accelerator.accumulate(network):
            batch = TrainingBatch(
                items["latents"],
                with_dropped_captions(items["text"], items["drop_caption"], null),
                Strokes(items["tracks"], items["visibility"]),
                items["noise"],
                items["u"],
            )
            loss = denoising_loss(foundation, network, batch, settings.timestep_power, accelerator.autocast)
            losses = {"loss": loss, **job.extra_loss()}
            accelerator.backward(torch.stack(list(losses.values())).sum())
            parts.append({name: accelerator.reduce(part.detach(), "mean").item() for name, part in losses.items()})
            if not accelerator.sync_gradients:
                continue
            accelerator.clip_grad_norm_(job.parameters, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        ema.step(job.parameters)
        row = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        parts = []
        progress.losses.append({"step": progress.step + 1, **row})
        step = progress.step
        run.metrics(row, step)
        bar.set_postfix(loss=f"{np.mean([r['loss'] for r in progress.losses[-50:]]):.4f}", refresh=False)
        bar.update()
        if job.validation.items and (step % settings.validation.every == 0 or step == job.steps):
            validate(job, foundation, ema, progress, accelerator, rows)
            run.metrics({"motion_error": progress.errors[-1]["motion_error"]}, step)
            if job.validation.shown is not None:
                run.picture(job.validation.shown, f"{step:06d}", "validation")
        stopped = step < job.steps and stop.on_any_process(accelerator)
        if main and (saving.due(step) or stopped):
            checkpoint.save(progress.facts())
        if stopped:
            accelerator.wait_for_everyone()
            raise TrainingStopped(
                f"stopped by SIGTERM after step {step} of {job.steps}; run it again to go on from there"
            )
    bar.close()
    finish(job, ema, progress)
    if main:
        job.save()
        write_curve(output / "loss.csv", progress.losses)
        write_curve(output / "validation.csv", progress.errors)
        checkpoint.remove()
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def with_dropped_captions(text: Tensor, dropped: Tensor, null: Tensor) -> Tensor:
    """Embeddings (B, L, D), of the empty prompt (1, L, D) where `dropped` (B,) says so."""
    return torch.where(dropped[:, None, None], null.to(text.dtype), text)


def division(settings: TrainingParams, processes: int) -> tuple[int, int]:
    """The number of passes for one batch (gradient accumulation), and the items that each process holds at once.

    Raises:
        ParamsError: the batch cannot be divided evenly.
    """
    rows = min(settings.micro_batch_size, settings.batch_size // processes)
    if not rows or settings.batch_size % (rows * processes):
        raise ParamsError(
            f"params.yaml: batch_size {settings.batch_size} must be a multiple of {processes} processes x "
            f"micro_batch_size {settings.micro_batch_size}; change one of them, or compute.training_processes"
        )
    return settings.batch_size // (rows * processes), rows


def place_frozen(foundation: Foundation, device: torch.device, dtype: torch.dtype) -> None:
    """Move the frozen networks to the device of the run: on a GPU in the run's precision, the codec in full precision.

    On a CPU they keep their precision: autocast there fails on norms whose weights and input differ in precision.
    """
    for network in (foundation.unet, foundation.image_controlnet):
        network.to(device)
        if network.dtype != dtype and device.type != "cpu":
            network.to(dtype)
    foundation.vae.to(device)


def validate(
    job: Job, foundation: Foundation, ema: EMAModel, progress: Progress, accelerator: Accelerator, rows: int
) -> None:
    """Measure and note the motion error of the moving averages. They are kept if the error is the lowest so far."""
    ema.store(job.parameters)
    ema.copy_to(job.parameters)
    with job.as_sampled() as switch:
        error = job.validation.motion_error(foundation, job.network, switch, accelerator, rows)
    progress.add_error(error, job.parameters)
    ema.restore(job.parameters)


def finish(job: Job, ema: EMAModel, progress: Progress) -> None:
    """Set the trained parameters to their best moving average, or to the last one if nothing could be validated."""
    job.network.eval()
    if progress.best is None:
        ema.copy_to(job.parameters)
        return
    tqdm.write(f"{job.stage}: motion error {progress.best.error:.3f} of a still copy's, at step {progress.best.step}")
    with torch.no_grad():
        for parameter, best in zip(job.parameters, progress.best.weights, strict=True):
            parameter.copy_(best)


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """Write a curve as CSV; without rows, the file has only a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["step"])
        writer.writeheader()
        writer.writerows(rows)

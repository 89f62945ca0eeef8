"""What the three training stages share (Sec 2.4): loss, loop, guard, curves; on one process or several.

Everything random is drawn per item from the stage's seed, so a run that was interrupted, or that has more processes,
sees the same items with the same noise.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
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
from models.networks.foundation import Foundation
from models.networks.gradient_checkpointing import checkpoint_blocks
from models.networks.networks import MotionControlNet
from stages.params import ParamsError, Precision, TrainingParams
from stages.run.memory import keep_freed_memory
from stages.train.checkpoint import Checkpoint, Progress, training_key
from stages.train.items import TrainingItems
from stages.train.validation import Validation

CHECKPOINTS = Path("checkpoints")
WARMUP_SHARE = 0.05
DTYPES: dict[Precision, torch.dtype] = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Listener(Protocol):
    """Who is told about losses and errors while a stage trains."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...


def no_extra_loss() -> dict[str, Tensor]:
    """The denoising loss alone."""
    return {}


@dataclass
class Job:
    """One training stage: what learns, on which items, for how long, what guards it, and how it is kept."""

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
    patient_until: int = 0  # the step from which on validations without progress end the stage


def train(job: Job, foundation: Foundation, output: Path, run: Listener) -> None:
    """Optimise `job.parameters`, leave them at the moving average that moved held-out clips best, and save them.

    Goes on from a checkpoint if there is one. It is kept outside of the output, keyed by everything that shapes the
    result, and removed at the end. Writes `output/loss.csv`, a row per step, and `output/validation.csv`.
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
    bar = tqdm(initial=progress.step, total=job.steps, desc=job.stage, unit="step", disable=not main)
    parts: list[dict[str, float]] = []
    for items in loader:
        if progress.out_of_patience(settings.validation.patience, job.patient_until):
            break
        with accelerator.accumulate(network):
            batch = TrainingBatch(
                items["latents"],
                items["text"],
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
        if step % settings.checkpoint_every == 0 and main:
            checkpoint.save(progress.facts())
    bar.close()
    finish(job, ema, progress)
    if main:
        job.save()
        write_curve(output / "loss.csv", progress.losses)
        write_curve(output / "validation.csv", progress.errors)
        checkpoint.remove()
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def division(settings: TrainingParams, processes: int) -> tuple[int, int]:
    """In how many passes a batch is taken, and how many items each process then holds at once.

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
    """Frozen networks to where they train the others: on a GPU in the precision of the run, the codec in its own.

    On a CPU they stay as they are: autocast there cannot take norms of weights and input that differ.
    """
    for network in (foundation.unet, foundation.image_controlnet):
        network.to(device)
        if network.dtype != dtype and device.type != "cpu":
            network.to(dtype)
    foundation.vae.to(device)


def validate(
    job: Job, foundation: Foundation, ema: EMAModel, progress: Progress, accelerator: Accelerator, rows: int
) -> None:
    """Note the motion error of the moving averages, and keep them if it is the lowest so far."""
    ema.store(job.parameters)
    ema.copy_to(job.parameters)
    progress.add_error(job.validation.motion_error(foundation, job.network, accelerator, rows), job.parameters)
    ema.restore(job.parameters)


def finish(job: Job, ema: EMAModel, progress: Progress) -> None:
    """Leave the trained parameters at their best moving average, or at the last where nothing could be validated."""
    job.network.eval()
    if progress.best is None:
        ema.copy_to(job.parameters)
        return
    tqdm.write(f"{job.stage}: motion error {progress.best.error:.3f} of a still copy's, at step {progress.best.step}")
    with torch.no_grad():
        for parameter, best in zip(job.parameters, progress.best.weights, strict=True):
            parameter.copy_(best)


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """A curve as CSV; a header alone if there is nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["step"])
        writer.writeheader()
        writer.writerows(rows)

"""What the three training stages share (Sec 2.4): loss, loop, guard, curves; on one process or several.

Everything random is drawn per item from the stage's seed, so a run that was interrupted, or that has more processes,
sees the same items with the same noise.
"""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
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

from models.checkpointing import checkpoint_blocks
from models.conditions import motion_condition
from models.denoiser import denoise, first_frame_condition, image_residuals, motion_residuals, repeat_per_frame
from models.diffusion import diffusion_loss, draw_timesteps, training_target
from models.flow_maps import flow_map
from models.foundation import Foundation, FoundationError
from models.networks import MotionControlNet
from stages.checkpoint import Checkpoint, Progress
from stages.contracts import ContractError
from stages.items import weight_files
from stages.locks import only_run
from stages.memory import keep_freed_memory
from stages.params import Compute, Params, ParamsError, Precision, Training, load_params
from stages.tracking import Nobody, stage_run
from stages.training_items import TrainingItems
from stages.validation import Validation

FOUNDATION = Path("artifacts/foundation")
WARMUP_SHARE = 0.05
DTYPES: dict[Precision, torch.dtype] = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Listener(Protocol):
    """Who is told about losses and errors while a stage trains."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...


@dataclass
class Job:
    """One training stage: what learns, on which items, for how long, what guards it, and how it is kept."""

    stage: str
    settings: Training
    steps: int
    network: MotionControlNet
    parameters: list[nn.Parameter]
    items: TrainingItems
    validation: Validation
    save: Callable[[], None]
    extra_loss: Callable[[], dict[str, Tensor]] = dict  # named, already weighted terms beside the denoising loss
    patient_until: int = 0  # the step from which on validations without progress end the stage


def denoising_loss(
    foundation: Foundation,
    network: MotionControlNet,
    config: MotionControlNet,
    items: dict[str, Tensor],
    power: float,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Tensor:
    """Eq. 1 and Eq. 3: || eps - eps_theta(z_t, t, c_txt, c_img, c_trajs) ||^2 for a batch of training items.

    `network` is the motion ControlNet, perhaps wrapped for several processes; `config` is the bare one. The networks
    run within `autocast`; what they are given and compared with is made in full precision.
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
    image_condition = first_frame_condition(z_first, frames)
    with autocast():
        with torch.no_grad():
            image = image_residuals(foundation.image_controlnet, timesteps, text, *image_condition)
        residuals = image + motion_residuals(network, timesteps, text, condition)
        prediction = denoise(foundation.unet, x_t, timesteps, text, z_first, residuals)
    return diffusion_loss(prediction, training_target(foundation.scheduler, x0, items["noise"], timesteps))


def run_training_stage(stage: str, output: Path, run: Callable[[Params, Listener], None]) -> None:
    """The command of a training stage: an MLflow run with the curves and the weights' hash, or one line of error.

    On several processes, each of them runs this; the main one alone reports and writes, the one that launched them
    holds the stage's lock.
    """
    launched = "LOCAL_RANK" in os.environ
    source = None
    try:
        params = load_params()
        with nullcontext() if launched else only_run(stage):
            processes = training_processes(params.compute)
            if processes > 1 and not launched:
                sys.exit(subprocess.call(launch_command(stage, processes)))
            source = getattr(params, stage).source
            if not PartialState(cpu=not torch.cuda.is_available()).is_main_process:
                if source is None:
                    run(params, Nobody())
                return
            with stage_run(stage, params) as tracker:
                if source is None:
                    run(params, tracker)
                    for curve in sorted(output.glob("*.csv")):
                        tracker.artifact(curve)
                else:
                    adopt(Path(source), output)
                tracker.weights(output)
    except FileNotFoundError as error:
        sys.exit(f"{stage}: params.yaml: {stage}.source: {error}" if source else f"{stage}: {error}")
    except (ParamsError, ContractError, FoundationError) as error:
        sys.exit(f"{stage}: {error}")


def training_processes(compute: Compute) -> int:
    """How many processes train together: as many as asked for, else one for each GPU, else one."""
    return compute.training_processes or max(1, torch.cuda.device_count())


def launch_command(stage: str, processes: int) -> list[str]:
    """The command that runs a training stage on several processes of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, "-m", f"stages.{stage}"]


def adopt(source: Path, output: Path) -> None:
    """Take weights and config of a folder in place of training; FileNotFoundError if it has none."""
    files = weight_files(source)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, output / path.name)


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
    place(foundation, accelerator.device, DTYPES[settings.mixed_precision])
    optimizer = torch.optim.AdamW(job.parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_scheduler(
        "cosine", optimizer, num_warmup_steps=round(WARMUP_SHARE * job.steps), num_training_steps=job.steps
    )
    ema = EMAModel(job.parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
    states = {"optimizer": optimizer, "schedule": schedule, "ema": ema}
    if accelerator.scaler is not None:
        states["scaler"] = accelerator.scaler
    checkpoint = Checkpoint(job.stage, settings, job.steps, job.network, job.parameters, job.items, states)
    progress = checkpoint.load(accelerator.device)
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
            loss = denoising_loss(
                foundation, network, job.network, items, settings.timestep_power, accelerator.autocast
            )
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
            checkpoint.save(progress)
    bar.close()
    finish(job, ema, progress)
    if main:
        job.save()
        write_curve(output / "loss.csv", progress.losses)
        write_curve(output / "validation.csv", progress.errors)
        checkpoint.remove()
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def division(settings: Training, processes: int) -> tuple[int, int]:
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


def place(foundation: Foundation, device: torch.device, dtype: torch.dtype) -> None:
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

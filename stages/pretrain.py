"""Train the pocket foundation from streamed scenes, procedural or of pictures; a frozen stage, run by hand.

    python -m stages.pretrain                    # reads params.yaml, section pretrain; resumes where it was stopped

Fits the codec, then trains base, text encoder and image ControlNet jointly with a motion ControlNet, which makes the
base aware of flow. That network is exported beside the foundation, as a start for `stages.motion_controlnet`. With
`start`, a run begins with the weights that another one exported, for example at a smaller size. Scenes of pictures
need an album: `python -m models.pictures.fetch`.
Curves and sample pictures go to MLflow while it runs, and to files: `curve.csv` beside the weights, reports/pretrain/.
"""

import csv
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import nn
from tqdm import tqdm

from models.denoising.loss import TrainingBatch, denoising_loss, squared_error
from models.denoising.plain_sampler import sample_plainly
from models.networks.foundation import Foundation, embed_text
from models.pixels import to_uint8
from models.pretraining import (
    KINDS,
    SceneBatch,
    StrokeKind,
    choose_strokes,
    computing_in,
    make_pool,
    motion_error,
    sample_sheet,
)
from models.scenes import PRETRAIN_SEEDS
from models.worlds import World, picture_world, procedural_world
from stages.params import Params, PretrainParams, load_params
from stages.run.command import one_line_errors
from stages.run.locks import only_run
from stages.run.memory import keep_freed_memory
from stages.run.mlflow_runs import SilentRun, StageRun, stage_run
from stages.train.checkpoint import Checkpoint
from stages.train.trainee import Trainee, begin

CHECKPOINTS = Path("checkpoints/pretrain")
PICTURES = Path("reports/pretrain")
CURVES = ("step", "loss", "lr")
VALIDATION_SCENES, SHOWN = 24, 6  # scenes that are measured, and how many of them the pictures show
NO_STROKE_SHARE = 0.08  # share of batches without strokes and without the motion ControlNet's residuals
VALIDATION_SEED = 2 * PRETRAIN_SEEDS


def main() -> None:
    with one_line_errors("pretrain"), only_run("pretrain"):
        params = load_params()
        keep_freed_memory()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if find_spec("mlflow") is None:
            print(f"pretrain: no MLflow here; see {params.pretrain.output}/curve.csv and {PICTURES}")
            pretrain(params, device, SilentRun())
            return
        checkpoint = checkpoint_file(params)
        with stage_run("pretrain", params, {"checkpoint": checkpoint.stem}, go_on=checkpoint.is_file()) as run:
            pretrain(params, device, run)


def pretrain(params: Params, device: str, run: StageRun | SilentRun) -> None:
    """Run the whole pre-training, from the last checkpoint where there is one, and export the foundation.

    `run` receives loss and learning rate of every step, and the figures and a picture of each validation.
    """
    settings = params.pretrain
    world, unseen = worlds(params)
    state = checkpoint_file(params)
    trainee = begin(params, world, state.with_suffix(".codec"), device)
    parameters = trainee.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01, fused=True)
    ema = EMAModel(parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = Checkpoint(state, parameters, {"optimizer": optimizer, "ema": ema})
    facts = checkpoint.load(device) or {"step": 0, "log": [], "seconds": 0.0}
    step, log, seconds = facts["step"], facts["log"], facts["seconds"]
    if step:
        tqdm.write(f"pretrain: goes on from {checkpoint.file}")
    validation = scene_pool(params, unseen, trainee.foundation, VALIDATION_SEED, VALIDATION_SCENES, device)
    batches = stream(params, world, trainee.foundation, step, device)
    started = time.perf_counter()
    bar = tqdm(range(step, settings.steps), initial=step, total=settings.steps, desc="pretrain", unit="step")
    for step in bar:
        lr = settings.learning_rate * lr_factor(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = lr
        generator = torch.Generator(device).manual_seed(settings.seed * 10_000_019 + step)
        u = torch.rand((), generator=generator, device=device)
        kind: StrokeKind = "sparse"
        if u < NO_STROKE_SHARE + settings.dense_share:
            kind = "none" if u < NO_STROKE_SHARE else "dense"
        batch = training_batch(trainee.foundation, next(batches), kind, settings.caption_dropout, generator)
        with computing_in(settings.precision, torch.device(device)):
            loss = denoising_loss(trainee.foundation, trainee.motion_controlnet, batch, settings.timestep_power)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ema.step(parameters)
        log.append({"step": step, "loss": loss.item(), "lr": lr})
        done = step + 1
        run.metrics({"loss": log[-1]["loss"], "lr": lr}, done)
        bar.set_postfix(loss=f"{sum(row['loss'] for row in log[-100:]) / len(log[-100:]):.4f}")
        if done % settings.validate_every == 0 or done == settings.steps:
            figures, sheet = validate_scenes(trainee, ema, validation, settings.sampler_steps, device)
            log[-1] |= figures
            tqdm.write(json.dumps(log[-1]))
            run.metrics(figures, done)
            PICTURES.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sheet).save(PICTURES / f"{done:06d}.png")
            run.artifact(PICTURES / f"{done:06d}.png", "samples")
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            spent = seconds + time.perf_counter() - started
            checkpoint.save({"step": done, "log": log, "seconds": spent})
            ema.store(parameters)
            ema.copy_to(parameters)
            export(trainee, params, log, spent)
            ema.restore(parameters)
    run.weights(settings.output)
    run.artifact(Path(settings.output) / "curve.csv")


def worlds(params: Params) -> tuple[World, World]:
    """The world of the training scenes and that of the validation scenes."""
    settings = params.pretrain
    if settings.world == "procedural":
        return procedural_world(), procedural_world()
    return picture_world(settings.pictures, "train"), picture_world(settings.pictures, "validation")


def scene_pool(
    params: Params, world: World, foundation: Foundation, first_seed: int, count: int, device: str
) -> SceneBatch:
    """The scenes of `count` seeds from `first_seed` on, at the size of the parameters."""
    video, seeds = params.video, range(first_seed, first_seed + count)
    return make_pool(world, foundation, seeds, (video.width, video.height), video.frames, device)


def stream(params: Params, world: World, foundation: Foundation, step: int, device: str) -> Iterator[SceneBatch]:
    """Training batches from `step` on; pool k holds the scenes PRETRAIN_SEEDS + k * pool and following."""
    settings = params.pretrain
    per_pool = max(1, settings.pool * settings.reuse // settings.batch_size)
    while True:
        number = step // per_pool
        pool = scene_pool(params, world, foundation, PRETRAIN_SEEDS + number * settings.pool, settings.pool, device)
        while step // per_pool == number:
            generator = torch.Generator().manual_seed(settings.seed * 20_000_003 + step)
            yield pool.pick(torch.randperm(settings.pool, generator=generator)[: settings.batch_size])
            step += 1


def training_batch(
    foundation: Foundation, scenes: SceneBatch, kind: StrokeKind, caption_dropout: float, generator: torch.Generator
) -> TrainingBatch:
    """Scenes with noise, strokes of a kind and captions, of which a share is dropped for guidance."""
    latents, device = scenes.latents, scenes.latents.device
    noise = torch.randn(latents.shape, generator=generator, device=device)
    u = torch.rand(len(latents), generator=generator, device=device)
    keep = torch.rand(len(latents), generator=generator, device=device) >= caption_dropout
    captions = [caption if kept else "" for caption, kept in zip(scenes.captions, keep.tolist(), strict=True)]
    text = embed_text(foundation.tokenizer, foundation.text_encoder, captions)
    return TrainingBatch(latents, text, choose_strokes(scenes, kind, generator), noise, u)


@torch.no_grad()
def validate_scenes(
    trainee: Trainee, ema: EMAModel, scenes: SceneBatch, sampler_steps: list[int], device: str
) -> tuple[dict[str, float], np.ndarray]:
    """EMA weights on unseen scenes, sampled from noise in each of the given numbers of steps.

    Returns:
        Figures: squared error relative to a still copy's by strokes and kind, in the first number of steps; with sparse
        strokes for every number of steps the motion error and the sharpness, which is the mean difference between
        neighbouring pixels of the last frames over that of the real ones. And a contact sheet (H, W, 3) uint8 of sparse
        strokes on real and generated frames, in the last number of steps.
    """
    parameters = trainee.parameters()
    ema.store(parameters)
    ema.copy_to(parameters)
    foundation, latents = trainee.foundation, scenes.latents
    z_first = latents[:, :, 0]
    x0 = foundation.latent_space.to_model(latents, z_first)
    noise = torch.randn(x0.shape, generator=torch.Generator(device).manual_seed(7), device=device)
    text = embed_text(foundation.tokenizer, foundation.text_encoder, scenes.captions)
    figures = {}
    kinds: tuple[StrokeKind, ...] = ("dense", "sparse", "none")
    for strokes_kind in kinds:
        strokes = choose_strokes(scenes, strokes_kind, torch.Generator(device).manual_seed(11))
        made = sample_plainly(foundation, trainee.motion_controlnet, z_first, text, strokes, noise, sampler_steps[0])
        sample = foundation.latent_space.to_model(made, z_first)
        for kind in range(len(KINDS)):
            error = squared_error(sample[kind::3], x0[kind::3]) / x0[kind::3].pow(2).mean()
            figures[f"{strokes_kind}_{KINDS[(VALIDATION_SEED + kind) % 3]}"] = round(error.item(), 4)
    real = to_uint8(foundation.decode(latents))
    strokes = choose_strokes(scenes, "sparse", torch.Generator(device).manual_seed(11))
    assert strokes is not None  # only kind "none" has none
    for steps in sampler_steps:
        ending = "" if steps == sampler_steps[0] else f"_{steps}_steps"
        made = sample_plainly(foundation, trainee.motion_controlnet, z_first, text, strokes, noise, steps)
        videos = to_uint8(foundation.decode(made))
        figures[f"motion_error{ending}"] = round(motion_error(videos, scenes), 4)
        figures[f"sharpness{ending}"] = round(sharpness(videos) / sharpness(real), 4)
    sheet = sample_sheet(real[:SHOWN], videos[:SHOWN], strokes)
    ema.restore(parameters)
    return figures, sheet


def sharpness(videos: np.ndarray) -> float:
    """Mean difference between neighbouring pixels, 0..255, of the last frames of videos (B, T, H, W, 3) uint8."""
    last = videos[:, -1].astype(np.float32)
    return float(np.abs(np.diff(last, axis=1)).mean() + np.abs(np.diff(last, axis=2)).mean())


def lr_factor(step: int, settings: PretrainParams) -> float:
    """Linear warm-up, a plateau, then a linear fall to 2 % over the last `decay_share` of the steps."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = (settings.steps - step) / max(1.0, settings.decay_share * settings.steps)
    return warm * max(0.02, min(1.0, left))


def export(trainee: Trainee, params: Params, log: list[dict[str, Any]], seconds: float) -> None:
    """Write the foundation folder and the motion ControlNet: safetensors, configs, curve and the facts for the card."""
    output = Path(params.pretrain.output)
    trainee.save(output)
    validated = [row for row in log if len(row) > len(CURVES)]
    rows = [row for row in log if row["step"] % 20 == 0 or len(row) > len(CURVES)]
    names = {name for row in validated for name in row}
    with (output / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*CURVES, *sorted(names.difference(CURVES))])
        writer.writeheader()
        writer.writerows(rows)
    facts = {
        "steps": len(log),
        "hours": round(seconds / 3600, 2),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "params": params.pretrain.model_dump(mode="json"),
        "validation": {k: v for row in validated for k, v in row.items()},
    }
    (output / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def checkpoint_file(params: Params) -> Path:
    """The checkpoint is named by all that shapes the run but `steps`, so a longer run resumes a shorter one."""
    settings = params.pretrain.model_dump(
        mode="json", exclude={"steps", "output", "checkpoint_every", "validate_every"}
    )
    key = hashlib.sha256(json.dumps([settings, params.video.model_dump(mode="json")]).encode()).hexdigest()[:20]
    return CHECKPOINTS / f"{key}.pt"


if __name__ == "__main__":
    main()

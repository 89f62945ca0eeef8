"""Train the pocket foundation from streamed procedural scenes; a frozen stage, run by hand.

    python -m stages.pretrain                    # reads params.yaml, section pretrain; resumes where it was stopped

Fits the codec in closed form, then trains base, text encoder and image ControlNet jointly with a motion ControlNet,
which makes the base aware of flow. It is exported beside the foundation, as a start for `stages.motion_controlnet`.
Curves and sample pictures go to MLflow while it runs, and to files: `curve.csv` beside the weights, reports/pretrain/.
"""

import csv
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from models.codec import fit_linear_codec
from models.conditions import motion_condition
from models.denoiser import denoise, first_frame_condition, image_residuals, motion_residuals, repeat_per_frame
from models.diffusion import diffusion_loss, draw_timesteps, training_target
from models.drawing import contact_sheet, draw_tracks, side_by_side
from models.estimators import load_tracker_of_generated
from models.flow_maps import flow_map
from models.foundation import Foundation, embed_text
from models.latent_space import LatentSpace
from models.metrics import still_error, trajectory_error
from models.networks import MotionControlNet, motion_controlnet_like
from models.pocket import (
    CODEC_FACTOR,
    pocket_image_controlnet,
    pocket_scheduler,
    pocket_text_encoder,
    pocket_tokenizer,
    pocket_unet,
)
from models.scenes import (
    MAX_OBJECTS,
    PRETRAIN_SEEDS,
    Kind,
    moving_parts,
    render,
    sample_scenes,
    scene_captions,
    true_tracks,
)
from stages.locks import only_run
from stages.memory import keep_freed_memory
from stages.params import Params, ParamsError, Pretrain, load_params
from stages.tracking import Nobody, StageRun, stage_run

KINDS: tuple[Kind, ...] = ("camera", "object", "mixed")
CHECKPOINTS = Path("checkpoints/pretrain")
PICTURES = Path("reports/pretrain")
CURVES = ("step", "loss", "lr")
VALIDATION_SCENES = 24
SHOWN = 6  # of them in the pictures
TRACK_GRID = 16
MORE_STROKES = 4
ZOOM = 0.05  # log units from which a zoom cannot be told from a pan by one stroke
NO_STROKE_SHARE = 0.08  # of batches, without any stroke and without the motion ControlNet's residuals
VALIDATION_SEED = 2 * PRETRAIN_SEEDS
PINNED_SHARE = 0.3  # of the further strokes' probability mass that ignores motion, so that a still stroke means "stay"


@dataclass
class Batch:
    latents: Tensor  # (B, C, T, h, w), scaled
    tracks: Tensor  # (B, T, N, 2) in pixels
    visibility: Tensor  # (B, T, N)
    parts: Tensor  # (B, N), what each track moves with: 0 the scene, k a moving object
    camera: Tensor  # (B, 2), how far the camera pans and zooms: frame heights, log units
    captions: list[str]

    def pick(self, index: Tensor) -> "Batch":
        return Batch(
            self.latents[index],
            self.tracks[index],
            self.visibility[index],
            self.parts[index],
            self.camera[index],
            [self.captions[i] for i in index.tolist()],
        )


@dataclass
class Trainee:
    """Everything that learns: the foundation and the motion ControlNet."""

    foundation: Foundation
    motion_controlnet: MotionControlNet

    def parameters(self) -> list[nn.Parameter]:
        trained = (
            self.foundation.unet,
            self.foundation.image_controlnet,
            self.foundation.text_encoder,
            self.motion_controlnet,
        )
        return [p for network in trained for p in network.parameters()]


def main() -> None:
    try:
        params = load_params()
    except ParamsError as error:
        sys.exit(f"pretrain: {error}")
    with only_run("pretrain"):
        _run(params)


def _run(params: Params) -> None:
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if find_spec("mlflow") is None:
        print(f"pretrain: no MLflow here; see {params.pretrain.output}/curve.csv and {PICTURES}")
        train(params, device, Nobody())
        return
    checkpoint = checkpoint_file(params)
    with stage_run("pretrain", params, {"checkpoint": checkpoint.stem}, go_on=checkpoint.is_file()) as run:
        train(params, device, run)


def train(params: Params, device: str, run: StageRun | Nobody) -> None:
    """Run the whole pre-training, from the last checkpoint where there is one, and export the foundation.

    `run` is told loss and learning rate of every step, and at each validation its figures and a picture.
    """
    settings = params.pretrain
    trainee = build(params, device)
    parameters = trainee.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01, fused=True)
    ema = EMAModel(parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = checkpoint_file(params)
    step, log, seconds = _resume(checkpoint, trainee, optimizer, ema, device)
    validation = make_pool(params, trainee.foundation, VALIDATION_SEED, VALIDATION_SCENES, device)
    batches = stream(params, trainee.foundation, step, device)
    started = time.perf_counter()
    bar = tqdm(range(step, settings.steps), initial=step, total=settings.steps, desc="pretrain", unit="step")
    for step in bar:
        lr = settings.learning_rate * lr_factor(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = lr
        generator = torch.Generator(device).manual_seed(settings.seed * 10_000_019 + step)
        u = torch.rand((), generator=generator, device=device)
        strokes = "none" if u < NO_STROKE_SHARE else "dense" if u < NO_STROKE_SHARE + settings.dense_share else "sparse"
        loss = trainee_loss(trainee, next(batches), strokes, settings, generator)
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
            figures, sheet = validate(trainee, ema, validation, device)
            log[-1] |= figures
            tqdm.write(json.dumps(log[-1]))
            run.metrics(figures, done)
            PICTURES.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sheet).save(PICTURES / f"{done:06d}.png")
            run.artifact(PICTURES / f"{done:06d}.png", "samples")
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            _save_checkpoint(checkpoint, trainee, optimizer, ema, done, log, seconds + time.perf_counter() - started)
            ema.store(parameters)
            ema.copy_to(parameters)
            export(trainee, params, log, seconds + time.perf_counter() - started)
            ema.restore(parameters)
    run.weights(settings.output)
    run.artifact(Path(settings.output) / "curve.csv")


def build(params: Params, device: str) -> Trainee:
    """Fresh networks; output layers of both ControlNets away from zero, or joint training starts too slowly."""
    settings = params.pretrain
    torch.manual_seed(settings.seed)
    tokenizer = pocket_tokenizer()
    unet = pocket_unet(
        settings.latent_channels,
        settings.channels,
        settings.norm_groups,
        settings.heads,
        settings.motion_heads,
        settings.text_width,
    )
    image_controlnet = pocket_image_controlnet(unet)
    motion_controlnet = motion_controlnet_like(
        image_controlnet, list(settings.condition), settings.flow_scale, CODEC_FACTOR, settings.seed
    )
    for network in (image_controlnet, motion_controlnet):
        for module in (
            network.controlnet_cond_embedding,
            *network.controlnet_down_blocks,
            network.controlnet_mid_block,
        ):
            module.reset_parameters()
    foundation = Foundation(
        unet=unet,
        image_controlnet=image_controlnet,
        vae=fit_linear_codec(_codec_images(params), CODEC_FACTOR, settings.latent_channels).requires_grad_(False),
        text_encoder=pocket_text_encoder(tokenizer, settings.text_width),
        tokenizer=tokenizer,
        scheduler=pocket_scheduler(),
        latent_space=LatentSpace(),
    ).to(device)
    pool = make_pool(params, foundation, PRETRAIN_SEEDS - 10**6, 96, device)
    residual = (pool.latents - pool.latents[:, :, :1])[:, :, 1:]
    foundation.latent_space = LatentSpace(mean=0.0, std=float(residual.std()), first_frame_weight=1.0)
    return Trainee(foundation, motion_controlnet.to(device))


def make_pool(params: Params, foundation: Foundation, first_seed: int, size: int, device: str) -> Batch:
    """Render and encode `size` scenes, of all three kinds in turn."""
    video, parts = params.video, []
    y, x = torch.meshgrid(torch.arange(TRACK_GRID), torch.arange(TRACK_GRID), indexing="ij")
    cell = torch.tensor([video.width / TRACK_GRID, video.height / TRACK_GRID])
    grid = ((torch.stack([x, y], -1).float() + 0.5) * cell - 0.5).reshape(1, -1, 2).to(device)
    for start in range(0, size, 64):
        seeds = list(range(first_seed + start, first_seed + min(start + 64, size)))
        kinds = [KINDS[seed % len(KINDS)] for seed in seeds]
        scenes = sample_scenes(kinds, video.frames, seeds).to(device)
        frames = render(scenes, video.width, video.height)
        latents = foundation.encode_images(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)
        points = grid.expand(len(seeds), -1, -1)
        tracks, visibility = true_tracks(scenes, points, video.width, video.height)
        moving = moving_parts(scenes, points, video.width, video.height)
        reach = scenes.camera.abs().amax(1)  # pan x, pan y, log zoom, roll
        camera = torch.stack([reach[:, :2].amax(1), reach[:, 2]], 1)
        parts.append(Batch(latents.contiguous(), tracks, visibility, moving, camera, scene_captions(scenes)))
    return Batch(
        torch.cat([p.latents for p in parts]),
        torch.cat([p.tracks for p in parts]),
        torch.cat([p.visibility for p in parts]),
        torch.cat([p.parts for p in parts]),
        torch.cat([p.camera for p in parts]),
        [caption for p in parts for caption in p.captions],
    )


def stream(params: Params, foundation: Foundation, step: int, device: str) -> Iterator[Batch]:
    """Training batches from `step` on; pool k holds the scenes PRETRAIN_SEEDS + k * pool and following."""
    settings = params.pretrain
    per_pool = max(1, settings.pool * settings.reuse // settings.batch_size)
    while True:
        number = step // per_pool
        pool = make_pool(params, foundation, PRETRAIN_SEEDS + number * settings.pool, settings.pool, device)
        while step // per_pool == number:
            generator = torch.Generator().manual_seed(settings.seed * 20_000_003 + step)
            yield pool.pick(torch.randperm(settings.pool, generator=generator)[: settings.batch_size])
            step += 1


def trainee_loss(
    trainee: Trainee, batch: Batch, strokes: str, settings: Pretrain, generator: torch.Generator
) -> Tensor:
    """Eq. 1 on one batch; `strokes` is dense, sparse or none."""
    foundation, device = trainee.foundation, batch.latents.device
    z_first = batch.latents[:, :, 0]
    x0 = foundation.latent_space.to_model(batch.latents, z_first)
    noise = torch.randn(x0.shape, generator=generator, device=device)
    u = torch.rand(len(x0), generator=generator, device=device)
    timesteps = draw_timesteps(foundation.scheduler, u, settings.timestep_power)
    keep = torch.rand(len(x0), generator=generator, device=device) >= settings.caption_dropout
    captions = [caption if kept else "" for caption, kept in zip(batch.captions, keep.tolist(), strict=True)]
    prediction = predict(trainee, foundation.scheduler.add_noise(x0, noise, timesteps), timesteps, captions, z_first,
                         choose_strokes(batch, strokes, generator))  # fmt: skip
    return diffusion_loss(prediction, training_target(foundation.scheduler, x0, noise, timesteps))


def predict(
    trainee: Trainee,
    x_t: Tensor,
    timesteps: Tensor,
    captions: list[str],
    z_first: Tensor,
    strokes: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The clean latents, as foundation and motion ControlNet see them; `strokes` from `choose_strokes`."""
    foundation, network = trainee.foundation, trainee.motion_controlnet
    frames, height, width = x_t.shape[2], *(s * CODEC_FACTOR for s in x_t.shape[-2:])
    text = repeat_per_frame(embed_text(foundation.tokenizer, foundation.text_encoder, captions), frames)
    residuals = image_residuals(foundation.image_controlnet, timesteps, text, *first_frame_condition(z_first, frames))
    if strokes is not None:
        condition = motion_condition(
            network.config, foundation.vae, flow_map(*strokes, height, width), *strokes, z_first
        )
        residuals += motion_residuals(network, timesteps, text, condition)
    return denoise(foundation.unet, x_t, timesteps, text, z_first, residuals)


def choose_strokes(batch: Batch, strokes: str, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
    """Tracks (B, T, N, 2) and visibility (B, T, N): all of them, none (None), or a few that leave no motion unsaid.

    Sparse: one stroke for every part that moves (each moving object; the scene, when the camera moves), two more where
    the camera zooms, and in half of the items up to four more, drawn by motion intensity (Sec 2.2). So what has no
    stroke stays still, and the base need not dissolve it into all that it might do. Unused places are invisible.
    """
    tracks, visibility = batch.tracks, batch.visibility
    if strokes == "none":
        return None
    if strokes == "dense":
        return tracks, visibility
    b, t = tracks.shape[:2]
    usable = (visibility[:, 0] & visibility[:, 1]).float()
    part = torch.arange(MAX_OBJECTS + 1, device=tracks.device)
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
    chosen = torch.cat([first, more], 1)  # (B, 8)
    index = chosen[:, None].expand(b, t, chosen.shape[1])
    picked = tracks.gather(2, index[..., None].expand(-1, -1, -1, 2))
    return picked, visibility.gather(2, index) & used[:, None]


@torch.no_grad()
def validate(trainee: Trainee, ema: EMAModel, batch: Batch, device: str) -> tuple[dict[str, float], np.ndarray]:
    """EMA weights on unseen scenes, sampled from noise in one step.

    Returns:
        Figures: squared error relative to a still copy's by strokes and kind, and with sparse strokes the motion error;
        and a contact sheet (H, W, 3) uint8 of those strokes on real and generated frames.
    """
    parameters = trainee.parameters()
    ema.store(parameters)
    ema.copy_to(parameters)
    foundation = trainee.foundation
    z_first = batch.latents[:, :, 0]
    x0 = foundation.latent_space.to_model(batch.latents, z_first)
    noise = torch.randn(x0.shape, generator=torch.Generator(device).manual_seed(7), device=device)
    timesteps = torch.full((len(x0),), foundation.scheduler.config.num_train_timesteps - 1, device=device)
    figures = {}
    for strokes in ("dense", "sparse", "none"):
        chosen = choose_strokes(batch, strokes, torch.Generator(device).manual_seed(11))
        sample = predict(trainee, noise, timesteps, batch.captions, z_first, chosen)
        for kind in range(len(KINDS)):
            error = diffusion_loss(sample[kind::3], x0[kind::3]) / x0[kind::3].pow(2).mean()
            figures[f"{strokes}_{KINDS[(VALIDATION_SEED + kind) % 3]}"] = round(error.item(), 4)
        if strokes == "sparse" and chosen is not None:
            videos = to_videos(foundation, foundation.latent_space.from_model(sample, z_first))
            figures["motion_error"] = round(motion_error(videos, batch), 4)
            sheet = sample_sheet(to_videos(foundation, batch.latents[:SHOWN]), videos[:SHOWN], *chosen)
    ema.restore(parameters)
    return figures, sheet


def to_videos(foundation: Foundation, latents: Tensor) -> np.ndarray:
    """Latents (B, C, T, h, w) to videos (B, T, H, W, 3) uint8."""
    return (255 * foundation.decode(latents)).round().byte().movedim(2, -1).cpu().numpy()


def motion_error(videos: np.ndarray, batch: Batch) -> float:
    """How far the tracks in videos (B, T, H, W, 3) are from the true ones, over how far a still copy's are.

    Of the scenes' grid, all points count that are visible throughout; the project's own tracker follows them.
    """
    follow = load_tracker_of_generated("lucas_kanade")
    total = np.zeros(2)
    for video, truth, seen in zip(videos, batch.tracks.cpu().numpy(), batch.visibility.cpu().numpy(), strict=True):
        wanted = truth[:, seen.all(0)]
        if wanted.shape[1]:
            tracks, found = follow(video, wanted[0])
            total += trajectory_error(tracks, found, wanted).px, still_error(wanted).px
    return float(total[0] / max(total[1], 1e-6))


def sample_sheet(real: np.ndarray, made: np.ndarray, tracks: Tensor, visibility: Tensor) -> np.ndarray:
    """A row for each scene: frames through the codec and frames generated (B, T, H, W, 3), under the strokes of both.

    Args:
        tracks, visibility: (B', T, N, 2) and (B', T, N) of `choose_strokes`, B' at least B.
    """
    rows = []
    for scene, videos in enumerate(zip(real, made, strict=True)):
        strokes = tracks[scene, :, visibility[scene].any(0)].cpu().numpy()
        rows.append(side_by_side([draw_tracks(video, strokes, scale=2) for video in videos], ["real", "generated"]))
    return contact_sheet(rows, columns=4)


def lr_factor(step: int, settings: Pretrain) -> float:
    """Linear warm-up, a plateau, then a linear fall to 2 % over the last `decay_share` of the steps."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = (settings.steps - step) / max(1.0, settings.decay_share * settings.steps)
    return warm * max(0.02, min(1.0, left))


def export(trainee: Trainee, params: Params, log: list[dict], seconds: float) -> None:
    """Write the foundation folder and the motion ControlNet: safetensors, configs, curve and the facts for the card."""
    output = Path(params.pretrain.output)
    trainee.foundation.save(output)
    trainee.motion_controlnet.save_pretrained(output / "motion_controlnet")
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


def _codec_images(params: Params) -> Tensor:
    count, video = params.pretrain.codec_images, params.video
    seeds = list(range(PRETRAIN_SEEDS - 2 * 10**6, PRETRAIN_SEEDS - 2 * 10**6 + count))
    frames = [
        render(sample_scenes(["camera"] * len(part), 3, part), video.width, video.height)[:, 2] * 2 - 1
        for part in (seeds[i : i + 100] for i in range(0, count, 100))
    ]
    return torch.cat(frames)


def checkpoint_file(params: Params) -> Path:
    """Named by all that shapes the run, `steps` apart: a run may be made longer, another one is not taken up."""
    settings = params.pretrain.model_dump(
        mode="json", exclude={"steps", "output", "checkpoint_every", "validate_every"}
    )
    key = hashlib.sha256(json.dumps([settings, params.video.model_dump(mode="json")]).encode()).hexdigest()[:20]
    return CHECKPOINTS / f"{key}.pt"


def _save_checkpoint(path: Path, trainee, optimizer, ema, step: int, log: list[dict], seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "parameters": [p.detach().cpu() for p in trainee.parameters()],
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
        "step": step,
        "log": log,
        "seconds": seconds,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(path: Path, trainee, optimizer, ema, device: str) -> tuple[int, list[dict], float]:
    if not path.is_file():
        return 0, [], 0.0
    tqdm.write(f"pretrain: goes on from {path}")
    state = torch.load(path, map_location=device, weights_only=True)
    with torch.no_grad():
        for parameter, saved in zip(trainee.parameters(), state["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    ema.load_state_dict(state["ema"])
    return state["step"], state["log"], state["seconds"]


if __name__ == "__main__":
    main()

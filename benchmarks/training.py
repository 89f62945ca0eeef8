"""How much faster than a plain training loop: `python -m benchmarks.training`.

Ours is `stages.train.loop.train` as the stages call it: latents and text were encoded once, as `stages.latents` does,
torch makes the flow maps of a batch, and beside the object LoRA the camera LoRA is folded into the weights. The plain
loop has VAE and text encoder in every step, makes flow maps frame by frame with OpenCV, and runs both LoRAs beside the
weights; it keeps no moving average. Both train the same random networks on the same clips with the same noise in one
precision. Each turn of either is a process of its own, which also tells its peak memory. They take turns, and each is
judged by its fastest step, which other work on the machine disturbs least.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.sampler import random_networks
from models.denoising.conditions import unshuffled_flow
from models.denoising.denoiser import (
    denoise,
    first_frame_condition,
    image_residuals,
    motion_residuals,
    repeat_per_frame,
)
from models.denoising.flow_maps import BLUR_KERNEL, BLUR_SIGMA, BLUR_WIDTH
from models.denoising.loss import draw_timesteps, squared_error, training_target
from models.lora.sets import fold_lora, train_only
from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import MotionControlNet
from models.origins.official import SCHEDULER
from models.origins.pocket import pocket_tokenizer
from models.precision import DTYPES
from stages.params import load_params
from stages.train.loop import Job, place_frozen, train

PARAMS = Path(__file__).parents[1] / "profiles/pocket.yaml"
STAGES = ("motion_controlnet", "object_lora")
TEXT_WIDTH, TEXT_LENGTH, FACTOR, STROKES = 768, 77, 8, 8
CAPTION = "a red circle and a blue square on a teal background"


def build(options: argparse.Namespace) -> tuple[Foundation, MotionControlNet, list[nn.Parameter]]:
    """The paper's networks at a size of one's own, every weight random, and what the stage trains of them."""
    ranks = {"camera": options.rank, "object": options.rank} if options.stage == "object_lora" else {}
    networks = random_networks(options.channels, ranks, options.heads)
    if ranks:
        networks.motion_controlnet.set_adapters(list(ranks))
        parameters = train_only(networks.motion_controlnet, "object")
    else:
        parameters = list(networks.motion_controlnet.requires_grad_(True).parameters())
    tokenizer = pocket_tokenizer()
    tokenizer.model_max_length = TEXT_LENGTH
    foundation = Foundation(
        networks.unet,
        networks.image_controlnet,
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=tuple(options.vae_channels),
            layers_per_block=2,
            latent_channels=4,
        ),
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=12,
                num_attention_heads=12,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer,
        DDIMScheduler(**SCHEDULER),
        LatentSpace(),
    )
    for network in foundation.networks():
        network.requires_grad_(False).eval()
    return foundation, networks.motion_controlnet, parameters


class Clips(Dataset):
    """Random clips before anything is encoded; item i is a function of i."""

    def __init__(self, options: argparse.Namespace):
        self.frames, (self.height, self.width) = options.frames, options.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(index)
        size = torch.tensor([self.width, self.height])
        tracks = torch.rand(1, STROKES, 2, generator=draw) * size
        steps = torch.randn(self.frames - 1, STROKES, 2, generator=draw)
        return {
            "video": torch.randint(256, (self.frames, 3, self.height, self.width), generator=draw, dtype=torch.uint8),
            "caption": CAPTION,
            "tracks": torch.cat([tracks, tracks + steps.cumsum(0)]),
            "visibility": torch.ones(self.frames, STROKES, dtype=torch.bool),
            "noise": torch.randn(4, self.frames, self.height // FACTOR, self.width // FACTOR, generator=draw),
            "u": torch.rand((), generator=draw),
        }


class EncodedClips(Dataset):
    """The same with latents and text, as `stages.train.items` has them."""

    clips = ()

    def __init__(self, options: argparse.Namespace, latents: np.ndarray, text: np.ndarray):
        self.raw, self.frames = Clips(options), options.frames
        self.latents, self.text = latents, text

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = self.raw[index]
        del item["video"], item["caption"]
        latents = torch.from_numpy(self.latents[index]).float()
        return item | {
            "latents": latents.transpose(0, 1).contiguous(),
            "text": torch.from_numpy(self.text).float(),
            "drop_caption": torch.tensor(False),
        }


def encode(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Latents (N, T, C, h, w) and text (L, D) of all clips that will be used, in half precision."""
    foundation, *_ = build(options)
    foundation.to(options.device)
    clips, count = Clips(options), options.batch * (options.steps + 1)
    videos = (clips[index]["video"].to(options.device) / 255 for index in range(count))
    latents = np.stack([foundation.encode_images(video).half().cpu().numpy() for video in videos])
    return latents, foundation.encode_text([CAPTION])[0].half().cpu().numpy()


def ours(options: argparse.Namespace, latents: np.ndarray, text: np.ndarray) -> list[float]:
    """Seconds of each step after the first of the stages' own loop."""
    foundation, network, parameters = build(options)
    if options.stage == "object_lora":
        fold_lora(network, "camera")
    settings = getattr(load_params(PARAMS), options.stage).model_copy(
        update={
            "batch_size": options.batch,
            "micro_batch_size": options.batch,
            "mixed_precision": options.precision,
            "checkpoint_every": options.steps + 2,
        }
    )
    clock: list[float] = []
    listener = SimpleNamespace(metrics=lambda values, step: clock.append(time.perf_counter()))
    network.to(options.device)
    job = Job(
        options.stage,
        settings,
        options.steps + 1,
        network,
        parameters,
        EncodedClips(options, latents, text),
        SimpleNamespace(items=[]),
        save=lambda: None,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        train(job, foundation, Path("out"), listener)
    return np.diff(clock).tolist()


def plain(options: argparse.Namespace) -> list[float]:
    """Seconds of each step after the first of a loop that encodes what it needs when it needs it."""
    foundation, network, parameters = build(options)
    device = torch.device(options.device)
    foundation.to(device)
    place_frozen(foundation, device, DTYPES[options.precision])
    network.to(device).train()
    settings = getattr(load_params(PARAMS), options.stage)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    clips, clock = Clips(options), []
    for step in range(options.steps + 1):
        batch = default_collate([clips[step * options.batch + row] for row in range(options.batch)])
        items = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.autocast(device.type, DTYPES[options.precision], enabled=options.precision != "no"):
            loss = plain_loss(foundation, network, items, settings.timestep_power)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        loss.item()  # as every loop reads it; waits for a GPU
        clock.append(time.perf_counter())
    return np.diff(clock).tolist()


def plain_loss(foundation: Foundation, network: MotionControlNet, items: dict[str, Any], power: float) -> Tensor:
    """Eq. 1 from pixels, captions and tracks."""
    video, (h, w) = items["video"], items["noise"].shape[-2:]
    frames = video.shape[1]
    latents = foundation.encode_images(video.flatten(0, 1) / 255).float().unflatten(0, video.shape[:2]).transpose(1, 2)
    text = repeat_per_frame(foundation.encode_text(items["caption"]), frames)
    maps = [opencv_flow_map(tracks.numpy(), h * FACTOR, w * FACTOR) for tracks in items["tracks"].cpu()]
    condition = unshuffled_flow(torch.from_numpy(np.stack(maps)).to(latents.device), 1.0, FACTOR)
    z_first = latents[:, :, 0]
    timesteps = draw_timesteps(foundation.scheduler, items["u"], power)
    x_t = foundation.scheduler.add_noise(latents, items["noise"], timesteps)
    image_condition = first_frame_condition(z_first, frames)
    residuals = image_residuals(foundation.image_controlnet, timesteps, text, *image_condition)
    residuals += motion_residuals(network, timesteps, text, condition)
    prediction = denoise(foundation.unet, x_t, timesteps, text, z_first, residuals)
    return squared_error(prediction, training_target(foundation.scheduler, latents, items["noise"], timesteps))


def opencv_flow_map(tracks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Blurred flow map (2, T, H, W) of tracks (T, N, 2) that are seen throughout, frame by frame."""
    sigma = BLUR_SIGMA * width / BLUR_WIDTH
    side = 2 * round(BLUR_KERNEL * width / BLUR_WIDTH / 2 - 0.5) + 1
    maps = [np.zeros((height, width, 2), np.float32)]
    for before, after in zip(tracks[:-1], tracks[1:], strict=True):
        sparse = np.zeros((height, width, 2), np.float32)
        for (x, y), moved in zip(before, after - before, strict=True):
            if 0 <= int(x) < width and 0 <= int(y) < height:
                sparse[int(y), int(x)] = moved
        maps.append(cv2.GaussianBlur(sparse, (side, side), sigma))
    return np.stack(maps).transpose(3, 0, 1, 2)


def alone(work: Callable, options: argparse.Namespace, *given: Any) -> Any:
    """What `work` returns, from a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (options, *given))


def measured(options: argparse.Namespace, loop: Callable, *given: Any) -> tuple[float, float]:
    """Seconds of the fastest step, and the peak memory of this process in MB."""
    fastest = min(loop(options, *given))
    if options.device == "cuda":
        return fastest, torch.cuda.max_memory_allocated() / 1e6
    return fastest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """`times_faster`: the plain loop's seconds over ours."""
    encoded = alone(encode, options)
    turns: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    for _ in range(options.repeats):
        turns["plain"].append(alone(measured, options, plain))
        turns["ours"].append(alone(measured, options, ours, *encoded))
    seconds = {name: min(fastest for fastest, _ in made) for name, made in turns.items()}
    row = {key: getattr(options, key) for key in ("stage", "batch", "frames", "heads", "vae_channels", "precision")}
    row |= {f"{name}_s": round(fastest, 3) for name, fastest in seconds.items()}
    row |= {f"{name}_mb": round(made[0][1]) for name, made in turns.items()}
    return row | {"times_faster": round(seconds["plain"] / seconds["ours"], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--channels", type=int, nargs=4, default=[64, 128, 256, 256], help="SD 1.5: 320 640 1280 1280")
    parser.add_argument("--heads", type=int, default=2, help="of each attention; SD 1.5 has 8, of 40 channels and more")
    parser.add_argument("--vae-channels", type=int, nargs=4, default=[32, 64, 128, 128], help="SD 1.5: 128 256 512 512")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 384], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="measured ones, after a first that is not")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="no", choices=DTYPES)
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    for stage in options.stages:
        options.stage = stage
        print(json.dumps(compare(options)), flush=True)


if __name__ == "__main__":
    main()

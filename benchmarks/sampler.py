"""How much faster than a plain sampling loop: `python -m benchmarks.sampler`.

The plain loop is built as the authors' code is: one seed after another, both ControlNets at every step, the branches of
classifier-free guidance as one batch, LoRAs beside the weights. Both use the same random networks, the same noise and
the same machine, and take turns; the figures are medians of times and of their ratios. Peak memory is that of a process
which does nothing else, with two seeds at most: both take one seed after another.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from models.denoising import denoiser
from models.denoising.conditions import unshuffled_flow
from models.modes import Lora
from models.networks.latent_space import LatentSpace
from models.origins.official import SCHEDULER, SD15, OfficialNetworks, empty_networks
from models.sampling import guidance
from models.sampling.adapters import use_lora
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings

SCALE, TRAJECTORY_SCALE = 8.5, 1.1
MODES: dict[str, float | None] = {"camera": None, "object": TRAJECTORY_SCALE}
OPT_INS = {"solver": "dpmsolver++", "residual_interval": 2}


def random_networks(channels: list[int], ranks: dict[Lora, int], heads: int = 8) -> OfficialNetworks:
    """The authors' networks at a size of one's own, every weight random, frozen."""
    networks = empty_networks(SD15 | {"block_out_channels": tuple(channels), "attention_head_dim": heads}, ranks)
    torch.manual_seed(0)
    for network in networks:
        network.to_empty(device="cpu")
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        for name, buffer in network.named_buffers():
            if name.endswith("pe"):
                buffer.normal_(std=0.02)
        network.requires_grad_(False).eval()
    return networks


def build(channels: list[int], rank: int, device: str, dtype: torch.dtype) -> ImageConductorPipeline:
    networks = random_networks(channels, {"camera": rank, "object": rank})
    for network in networks:
        network.to(device, dtype)
    pipe = ImageConductorPipeline(
        networks.unet,
        networks.image_controlnet,
        networks.motion_controlnet,
        DDIMScheduler(**SCHEDULER),
        latent_space=LatentSpace(),
        settings=Settings(guidance_scale=SCALE),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inputs(pipe: ImageConductorPipeline, frames: int, height: int, width: int, seeds: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(pipe.device, pipe.unet.dtype)

    return {
        "first_latents": normal(1, 4, height, width),
        "prompt_embeds": normal(1, 77, 768),
        "negative_prompt_embeds": normal(1, 77, 768),
        "flow_maps": normal(1, 2, frames, 8 * height, 8 * width) * 0.05,
        "latents": normal(seeds, 1, 4, frames, height, width),
    }


@torch.no_grad()
def plain_loop(pipe: ImageConductorPipeline, given: dict[str, Tensor], mode: str, steps: int) -> Tensor:
    """Seeds outside, timesteps inside; everything asked anew at every step."""
    frames, scale = given["latents"].shape[3], MODES[mode]
    texts = [denoiser.repeat_per_frame(given[f"{name}prompt_embeds"], frames) for name in ("negative_", "")]
    condition = unshuffled_flow(given["flow_maps"], 1.0, 8)
    image = denoiser.first_frame_condition(given["first_latents"], frames)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps, device=pipe.device)

    def predict(x: Tensor, t: Tensor, lora: str | None, chosen: list[Tensor]) -> list[Tensor]:
        rows, text = len(chosen), torch.cat(chosen)
        timesteps = t.expand(rows)
        image_rows = [part.repeat(rows, 1, 1, 1, 1) for part in image]
        use_lora(pipe.motion_controlnet, lora)
        residuals = denoiser.image_residuals(pipe.image_controlnet, timesteps, text, *image_rows)
        residuals += denoiser.motion_residuals(
            pipe.motion_controlnet, timesteps, text, condition.repeat(rows, 1, 1, 1, 1)
        )
        first = given["first_latents"].repeat(rows, 1, 1, 1)
        made = denoiser.denoise(pipe.unet, x.repeat(rows, 1, 1, 1, 1), timesteps, text, first, residuals)
        return list(made.split(1))

    videos = []
    for x in given["latents"]:
        for t in scheduler.timesteps:
            if scale is None:
                prediction = guidance.classifier_free(*predict(x, t, mode, texts), SCALE)
            else:
                null, text = predict(x, t, None, texts)
                (steered,) = predict(x, t, mode, texts[1:])
                prediction = guidance.camera_free(null, text, steered, SCALE, scale)
            x = scheduler.step(prediction, t, x).prev_sample
        videos.append(x)
    return torch.stack(videos)


def sampler(pipe: ImageConductorPipeline, given: dict[str, Tensor], mode: str, steps: int, **chosen) -> Tensor:
    given = {("strokes" if name == "flow_maps" else name): value for name, value in given.items()}
    settings = {"num_inference_steps": steps, "trajectory_guidance_scale": MODES[mode]}
    return pipe.sample_latents(**given, mode=mode, **settings, **chosen)


def seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    result = call()
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def compare(options: argparse.Namespace, mode: str, count: int, steps: int) -> dict:
    """Times of the two in turns; `ratio` below 1 is faster than the plain loop."""
    pipe = build(options.channels, options.rank, options.device, options.dtype)
    given = inputs(pipe, options.frames, *options.latents, count)
    variants: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain_loop(pipe, given, mode, steps),
        "exact": lambda: sampler(pipe, given, mode, steps),
    }
    if options.opt_ins:
        fewer = max(1, round(steps * options.opt_in_share))
        variants["opt_ins"] = lambda: sampler(pipe, given, mode, fewer, **OPT_INS)
    times: dict[str, list[float]] = {name: [] for name in variants}
    results: dict[str, Tensor] = {}
    for _ in range(options.repeats):
        for name, call in variants.items():
            spent, results[name] = seconds(call)
            times[name].append(spent)
    off = (results["exact"] - results["plain"]).abs().max() / results["plain"].abs().max()
    row = {"mode": mode, "seeds": count, "steps": steps, "off": float(f"{off:.1e}")}
    for name, spent in times.items():
        row[f"{name}_s"] = round(statistics.median(spent), 2)
        if name != "plain":
            ratios = [a / b for a, b in zip(spent, times["plain"], strict=True)]
            row[f"{name}_ratio"] = round(statistics.median(ratios), 3)
    return row


def peak_memory(options: argparse.Namespace, mode: str, count: int, plain: bool) -> float:
    """Peak memory in MB of a fresh process that samples one step."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (options, mode, count, plain))


def _peak(options: argparse.Namespace, mode: str, count: int, plain: bool) -> float:
    pipe = build(options.channels, options.rank, options.device, options.dtype)
    given = inputs(pipe, options.frames, *options.latents, count)
    (plain_loop if plain else sampler)(pipe, given, mode, 1)
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler", description=__doc__)
    parser.add_argument("--channels", type=int, nargs=4, default=[64, 128, 256, 256], help="SD 1.5: 320 640 1280 1280")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--latents", type=int, nargs=2, default=[32, 48], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--steps", type=int, default=4, help="for one seed; fewer for many, so that the time is alike")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--opt-ins", action="store_true", help=f"also {OPT_INS}, with fewer steps")
    parser.add_argument("--opt-in-share", type=float, default=0.5, help="of the steps, with the opt-ins")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.dtype = getattr(torch, options.dtype)
    for mode in options.modes:
        for count in options.seeds:
            row = compare(options, mode, count, max(1, options.steps // count))
            for name, plain in (("plain_mb", True), ("exact_mb", False)):
                row[name] = round(peak_memory(options, mode, min(count, 2), plain))
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""Time and memory of the full-size base on a CPU, with random weights: `python -m benchmarks.full_size`.

It writes the published parts at their published sizes (8 GB), assembles them as the stage `foundation` does (8 GB
more), and runs one guided step of Eq. 5 (three passes of the UNet) on 16 frames of 384x256 in float32. Each part runs
in a process of its own, and prints its seconds, its CPU seconds and its peak memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from diffusers.models.controlnets.controlnet_sparsectrl import SparseControlNetModel
from transformers import CLIPTextConfig, CLIPTextModel

from models.denoising.strokes import Strokes
from models.lora.sets import add_lora
from models.networks.foundation import Foundation
from models.networks.networks import motion_controlnet_like
from models.origins.hub import assemble_foundation
from models.origins.pocket import pocket_tokenizer
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings

PARTS = ("base", "motion_adapter", "image_controlnet")
WIDTH, HEIGHT, FRAMES, RANK = 384, 256, 16, 64


def publish(folder: Path) -> None:
    """Write random weights in the layout and at the size of the published ones."""
    torch.manual_seed(0)
    widths = (128, 256, 512, 512)
    networks = {
        "base/unet": lambda: UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
        "base/vae": lambda: AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        ),
        "base/text_encoder": lambda: CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
        ),
        "motion_adapter": lambda: MotionAdapter(use_motion_mid_block=False),
        "image_controlnet": lambda: SparseControlNetModel(num_attention_heads=8),
    }
    for name, build in networks.items():
        build().save_pretrained(folder / name)
    pocket_tokenizer().save_pretrained(folder / "base" / "tokenizer")


def assemble(folder: Path) -> None:
    """What the stage `foundation` does."""
    assemble_foundation(*(str(folder / part) for part in PARTS)).save(folder / "foundation")


def step(folder: Path) -> None:
    """One guided step with the object LoRA in one of three branches."""
    foundation = Foundation.load(folder / "foundation")
    network = motion_controlnet_like(foundation.image_controlnet, ["flow"], 1.0, foundation.codec_factor, 0)
    add_lora(network, "object", rank=RANK, seed=0)
    network.requires_grad_(False).eval()
    settings = Settings(WIDTH, HEIGHT, FRAMES, num_inference_steps=1)
    pipe = ImageConductorPipeline.assemble(foundation, network, settings)
    draw = torch.Generator().manual_seed(0)
    sizes = (HEIGHT // foundation.codec_factor, WIDTH // foundation.codec_factor)
    stroke = torch.stack([torch.linspace(100, 200, FRAMES), torch.full((FRAMES,), 128.0)], -1)
    made = pipe.sample_latents(
        torch.randn(1, 4, *sizes, generator=draw),
        torch.randn(1, 77, 768, generator=draw),
        {"object": Strokes.visible(stroke[None, :, None])},
        "object",
        latents=torch.randn(1, 4, FRAMES, *sizes, generator=draw),
        negative_prompt_embeds=torch.randn(1, 77, 768, generator=draw),
        trajectory_guidance_scale=1.1,
    )
    assert made.isfinite().all()


TASKS: dict[str, Callable[[Path], None]] = {"publish": publish, "assemble": assemble, "step": step}


def measure(task: str, folder: Path) -> None:
    """Run one task in this process and print what it took as JSON."""
    start, cpu = time.perf_counter(), time.process_time()
    TASKS[task](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    figures = {key: round(value) for key, value in seconds.items()}
    print(
        json.dumps({"task": task, "peak_gib": round(peak, 2), "threads": torch.get_num_threads()} | figures), flush=True
    )


def main() -> None:
    """Measure every task in a folder that is removed in the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to write 17 GB; a temporary folder if left out")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if left out")
    parser.add_argument("--task", choices=TASKS, help="this one alone, in this process, on what the ones before left")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.task:
        measure(options.task, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for task in TASKS:
            command = [sys.executable, "-m", "benchmarks.full_size", f"--task={task}", f"--folder={folder}"]
            subprocess.run([*command, f"--threads={torch.get_num_threads()}"], check=True)


if __name__ == "__main__":
    main()

"""Animate one image with one stroke, in a fresh clone: `.venv/bin/python examples/animate.py --output video.gif`.

With `--model artifacts/model` the script uses the model that `make repro` made. Without it, the script puts a model
together from `pretrained/pocket`. That model has no trained LoRA: its LoRA is zero, so both modes give the same video,
which the motion ControlNet alone makes of the stroke.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.lora.sets import add_lora
from models.modes import LORAS, Lora
from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from models.video.write import encode_gif

ROOT = Path(__file__).parents[1]
STROKES = {"width": 384, "height": 256, "trajectories": [[[136, 133], [206, 110]]]}  # pixels of docs/example.png


def pocket_pipeline(mode: Lora) -> ImageConductorPipeline:
    """The pocket foundation with its pre-trained motion ControlNet, and a LoRA for `mode` that changes nothing."""
    foundation = Foundation.load(ROOT / "pretrained/pocket")
    network = MotionControlNet.from_pretrained(ROOT / "pretrained/pocket/motion_controlnet")
    add_lora(network, mode, rank=1, seed=0)
    settings = Settings(width=96, height=64, frames=8, fps=8, num_inference_steps=1, guidance_scale=1.0)
    pipe = ImageConductorPipeline.assemble(foundation, network.requires_grad_(False).eval(), settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def animate(model: str | None, mode: Lora, seed: int) -> tuple[np.ndarray, int]:
    """Frames (T, H, W, 3) uint8 of the example picture, and their rate in frames per second."""
    pipe = ImageConductorPipeline.from_pretrained(model) if model else pocket_pipeline(mode)
    image = Image.open(ROOT / "docs/example.png").convert("RGB")
    generator = torch.Generator().manual_seed(seed)
    video = pipe(image, "", STROKES, mode=mode, generator=generator, output_type="np").frames[0]
    return np.rint(255 * np.asarray(video)).astype(np.uint8), pipe.settings.fps


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Animate docs/example.png with one stroke.")
    parser.add_argument("--model", help="saved model, for example artifacts/model; default: pretrained/pocket")
    parser.add_argument("--mode", choices=LORAS, default="object", help="what the stroke moves; default: object")
    parser.add_argument("--seed", type=int, default=0, help="repeats a video")
    parser.add_argument("--output", type=Path, default=Path("video.gif"), help="GIF file; default: video.gif")
    options = parser.parse_args(arguments)
    frames, fps = animate(options.model, options.mode, options.seed)
    options.output.write_bytes(encode_gif(frames, fps))
    print(f"{options.output}: {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}")


if __name__ == "__main__":
    main()

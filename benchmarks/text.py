"""How well text in pictures is found: `python -m benchmarks.text --videos FOLDER`.

Frames of real videos without text, and the same frames with a caption, a subtitle or a logo in a corner, drawn at
random sizes, places and colours. Printed is the share of frames that are told right by whether more of the picture than
a limit is under text.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.estimators import load_estimator
from models.video.read import read_frames

KINDS = ("caption", "subtitle", "logo")
WORDS = "the of morning coffee city lights STUDIO News 24 travel with love river ocean Best Moments tv film WWW".split()
LIMIT = 0.001  # share of the picture under text
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")


def draw_text(frame: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A frame (H, W, 3) uint8 with text of a kind: see KINDS."""
    height, width = frame.shape[:2]
    share = {"caption": (0.06, 0.14), "subtitle": (0.045, 0.08), "logo": (0.035, 0.07)}[kind]
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / rng.choice(FONTS)), max(8, round(height * rng.uniform(*share))))
    text = " ".join(rng.choice(WORDS, rng.integers(1, 3) if kind == "logo" else rng.integers(2, 6)))
    layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    while pen.textlength(text, font) > 0.95 * width and " " in text:
        text = text.rpartition(" ")[0]
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    wide, high = right - left, bottom - top
    if kind == "subtitle":
        x, y = (width - wide) / 2, height * 0.94 - high
    elif kind == "logo":
        x = rng.choice([0.03 * width, 0.97 * width - wide])
        y = rng.choice([0.04 * height, 0.96 * height - high])
    else:
        x, y = rng.uniform(0, max(1, width - wide)), rng.uniform(0, max(1, height - high))
    light = rng.random() < 0.7
    colour = tuple(int(value) for value in (rng.integers(220, 256, 3) if light else rng.integers(0, 60, 3)))
    strength = int(255 * rng.uniform(0.6, 1.0)) if kind == "logo" else 255
    edge = (0, 0, 0, strength) if light else (255, 255, 255, strength)
    pen.text((x - left, y - top), text, (*colour, strength), font, stroke_width=max(1, high // 16), stroke_fill=edge)
    return np.asarray(Image.alpha_composite(Image.fromarray(frame).convert("RGBA"), layer).convert("RGB"))


def frames_of(paths: list[Path], each: int, long_side: int) -> list[np.ndarray]:
    """`each` frames of each video, evenly spaced, the long side at most `long_side` pixels."""
    frames = []
    for path in paths:
        video = list(read_frames(path))
        for index in np.linspace(0, len(video) - 1, each).round().astype(int):
            frame = video[index]
            scale = min(1.0, long_side / max(frame.shape[:2]))
            size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
            frames.append(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__)
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="folders of videos without text")
    parser.add_argument("--frames", type=int, default=5, help="of each video")
    parser.add_argument("--long-side", type=int, default=640, help="pixels of the frames")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, find = np.random.default_rng(options.seed), load_estimator("text", "rapidocr")
    paths = [path for folder in options.videos for path in sorted(folder.glob("*.mp4"))]
    frames = frames_of(paths, options.frames, options.long_side)
    started, shares = time.process_time(), {}
    shares["none"] = [float(find(frame[None])[0]) for frame in frames]
    for kind in KINDS:
        shares[kind] = [float(find(draw_text(frame, kind, rng)[None])[0]) for frame in frames]
    seconds = (time.process_time() - started) / (len(frames) * (1 + len(KINDS)))
    right = {kind: sum((share > LIMIT) == (kind != "none") for share in values) for kind, values in shares.items()}
    row = {kind: f"{count} of {len(frames)}" for kind, count in right.items()}
    print(json.dumps({"limit": LIMIT, "s_per_frame": round(seconds, 2)} | row))


if __name__ == "__main__":
    main()

"""How well a pre-trained foundation animates photographs: `python -m benchmarks.pictures --foundation FOLDER`.

Runs on the test pictures of the album (`python -m models.pictures.fetch`), with the motion ControlNet of the folder and
without LoRAs. Prints JSON:
- `still`: every photograph, without motion. PSNR of frame 0, and mean difference between neighbouring pixels of the
  last frame, both against the picture; what the codec alone keeps of that difference.
- `camera`, `object`, `mixed`: scenes with sparse strokes. Error of all visible points over a still copy's, by both
  trackers (Lucas-Kanade, template).
- `object`: also `object_follows` and `background_follows`, the share of the motion; true masks tell what is which.
- `uncovered`, by sampling steps: mean difference between neighbouring pixels over the real one, where the ground was
  hidden in frame 0 and is seen in the last frame; and squared error there over that of a still copy.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.denoising.plain_sampler import sample_plainly
from models.denoising.strokes import Strokes
from models.estimators import load_tracker_of_generated, second_tracker
from models.geometry import Size
from models.metrics import errors_of_videos, following
from models.networks.foundation import Foundation, embed_text
from models.networks.networks import MotionControlNet
from models.pictures.scenes import picture_masks
from models.pictures.stills import whole_stills
from models.pixels import to_uint8
from models.pretraining import KINDS, SceneBatch, choose_strokes, make_pool
from models.worlds import World, picture_world

SCENE_SEEDS = 5 * 10**12  # of the scenes; no training and no validation uses them
NOISE_SEED, STROKES_SEED = 7, 11
TRACKERS = ("lucas_kanade", second_tracker("lucas_kanade"))
COVERED = 0.5  # coverage by things from which ground counts as hidden
SEEN = 0.05  # coverage up to which ground counts as seen
PIN = 0.5  # place of the single still stroke, in frame sizes


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--foundation", type=Path, required=True, help="folder that pre-training exported")
    parser.add_argument("--pictures", type=Path, default=Path("data/pictures"), help="the album")
    parser.add_argument("--scenes", type=int, default=96, help="scenes, a third of each kind")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 8], help="numbers of sampling steps")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 64], help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    torch.manual_seed(0)
    world = picture_world(options.pictures, "test")
    size = (options.size[0], options.size[1])
    model = Model(options.foundation, size, options.frames)
    figures: dict[str, Any] = {"still": still_figures(model, world, options.steps)}
    print(json.dumps(figures | scene_figures(model, world, options.scenes, options.steps), indent=2))


class Model:
    """A foundation and its motion ControlNet, sampled without guidance."""

    def __init__(self, folder: Path, size: Size, frames: int) -> None:
        self.foundation = Foundation.load(folder)
        self.network = MotionControlNet.from_pretrained(folder / "motion_controlnet").eval()
        self.size, self.frames = size, frames

    def videos(self, z_first: Tensor, captions: list[str], strokes: Strokes, steps: int) -> np.ndarray:
        """(B, T, H, W, 3) uint8 for first latents (B, C, h, w)."""
        text = embed_text(self.foundation.tokenizer, self.foundation.text_encoder, captions)
        shape = (*z_first.shape[:2], self.frames, *z_first.shape[2:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(NOISE_SEED))
        return to_uint8(
            self.foundation.decode(sample_plainly(self.foundation, self.network, z_first, text, strokes, noise, steps))
        )


@torch.no_grad()
def still_figures(model: Model, world: World, steps: list[int]) -> dict[str, Any]:
    """Photographs that should stay as they are: one stroke in the middle rests."""
    assert world.album is not None
    pictures = whole_stills(world.album, *model.size)
    latents = model.foundation.encode_images(pictures)
    captions = [picture.label for picture in world.album.photographs]
    middle = torch.tensor(model.size) * PIN
    strokes = Strokes(
        middle.expand(len(latents), model.frames, 1, 2), torch.ones(len(latents), model.frames, 1, dtype=torch.bool)
    )
    real = to_uint8(pictures[:, None])
    copies = to_uint8(model.foundation.decode(latents[:, :, None]))
    figures: dict[str, Any] = {"gradient_of_codec": _gradient(copies[:, -1]) / _gradient(real[:, -1])}
    for count in steps:
        videos = model.videos(latents, captions, strokes, count)
        figures[f"{count}_steps"] = {
            "frame_0_psnr": float(np.mean([_psnr(a, b) for a, b in zip(videos[:, 0], real[:, 0], strict=True)])),
            "last_frame_psnr": float(np.mean([_psnr(a, b) for a, b in zip(videos[:, -1], real[:, 0], strict=True)])),
            "gradient_of_last_frame": _gradient(videos[:, -1]) / _gradient(real[:, -1]),
        }
    return figures


@torch.no_grad()
def scene_figures(model: Model, world: World, count: int, steps: list[int]) -> dict[str, Any]:
    """Scenes of test pictures under sparse strokes, of each kind and for each number of steps."""
    seeds = range(SCENE_SEEDS, SCENE_SEEDS + count)
    scenes = make_pool(world, model.foundation, seeds, model.size, model.frames, "cpu")
    strokes = choose_strokes(scenes, "sparse", torch.Generator().manual_seed(STROKES_SEED))
    assert strokes is not None  # sparse ones never are
    kinds = np.array([seed % len(KINDS) for seed in seeds])
    drawn = world.sample([KINDS[kind] for kind in kinds], model.frames, list(seeds), model.size[1], world.objects)
    covered = picture_masks(drawn, *model.size).sum(1).numpy()  # (B, T, H, W)
    real = to_uint8(world.render(drawn, *model.size))
    figures: dict[str, Any] = {}
    for steps_taken in steps:
        videos = model.videos(scenes.latents[:, :, 0], scenes.captions, strokes, steps_taken)
        row: dict[str, Any] = {
            kind: {tracker: _error(videos, scenes, np.flatnonzero(kinds == k), tracker) for tracker in TRACKERS}
            for k, kind in enumerate(KINDS)
        }
        objects = np.flatnonzero(kinds == KINDS.index("object"))
        row["object"] |= {
            f"{name}_{t}": v for t in TRACKERS for name, v in _follows(videos, scenes, objects, t).items()
        }
        row["uncovered"] = _uncovered(videos[objects], real[objects], covered[objects])
        figures[f"{steps_taken}_steps"] = row
    return figures


def _error(videos: np.ndarray, scenes: SceneBatch, index: np.ndarray, tracker: str) -> float:
    """Distance of all points that stay visible from their true tracks, over that of a still copy."""
    truth, seen = scenes.tracks.numpy(), scenes.visibility.all(1).numpy()
    index = np.array([i for i in index if seen[i].any()])
    wanted = [truth[i][:, seen[i]] for i in index]
    error, still = errors_of_videos(list(videos[index]), wanted, load_tracker_of_generated(tracker))
    return error / still


def _follows(videos: np.ndarray, scenes: SceneBatch, index: np.ndarray, tracker: str) -> dict[str, float]:
    """Shares of the first moving object's motion that its points and the ground's points follow, means over scenes."""
    follow = load_tracker_of_generated(tracker)
    shares: dict[str, list[float]] = {"object_follows": [], "background_follows": []}
    for i in index:
        tracks, seen, parts = scenes.tracks[i].numpy(), scenes.visibility[i].all(0).numpy(), scenes.parts[i].numpy()
        moving = [k for k in range(1, scenes.objects + 1) if (seen & (parts == k)).sum() >= 3]
        if not moving or (seen & (parts == 0)).sum() < 3:
            continue
        stroke = np.median(tracks[:, seen & (parts == moving[0])], axis=1)
        for name, chosen, if_lost in (("object_follows", moving[0], 0), ("background_follows", 0, 1)):
            found = follow(videos[i], tracks[0, seen & (parts == chosen)])
            shares[name].append(following(*found, stroke, if_lost).share)
    return {name: float(np.mean(values)) for name, values in shares.items() if values}


def _uncovered(videos: np.ndarray, real: np.ndarray, covered: np.ndarray) -> dict[str, float]:
    """Ground of the last frame that was hidden in frame 0. covered (B, T, H, W) in 0..1."""
    place = (covered[:, 0] > COVERED) & (covered[:, -1] < SEEN)
    made, true, first = (x.astype(np.float32) for x in (videos[:, -1], real[:, -1], real[:, 0]))
    apart = np.square(made - true).mean(-1)[place].mean() / np.square(first - true).mean(-1)[place].mean()
    inside = place[:, 1:, 1:] & place[:, :-1, 1:] & place[:, 1:, :-1]
    sharp = [float(_differences(frames)[inside].mean()) for frames in (made, true)]
    return {"pixels": int(place.sum()), "squared_error": float(apart), "sharpness": sharp[0] / sharp[1]}


def _differences(frames: np.ndarray) -> np.ndarray:
    """(B, H - 1, W - 1): mean difference of each pixel from the one above and the one to the left."""
    down = np.abs(frames[:, 1:, 1:] - frames[:, :-1, 1:]).mean(-1)
    across = np.abs(frames[:, 1:, 1:] - frames[:, 1:, :-1]).mean(-1)
    return (down + across) / 2


def _gradient(frames: np.ndarray) -> float:
    return float(_differences(frames.astype(np.float32)).mean())


def _psnr(made: np.ndarray, real: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(made.astype(np.float32) - real).mean(), 1e-6)))


if __name__ == "__main__":
    main()

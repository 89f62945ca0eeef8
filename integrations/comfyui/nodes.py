"""The three nodes. A node is a class with `INPUT_TYPES`, `RETURN_TYPES`, `FUNCTION` and `CATEGORY`.

ComfyUI's IMAGE is a float tensor (B, H, W, 3) in 0..1. Coordinates are the text of ComfyUI's track nodes: JSON
`[[{"x": x, "y": y}, ...], ...]` or one such list, with one point per frame.
"""

import json
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.modes import LORAS, MODES
from models.serving.load import load_model, place
from models.strokes.formats.common import from_tracks
from models.strokes.stroke import Trajectories
from models.strokes.trajectories import parse_trajectories

MODEL, STROKES = "IMAGE_CONDUCTOR_MODEL", "IMAGE_CONDUCTOR_STROKES"
CATEGORY = "Image Conductor"
DTYPES = ["float32", "bfloat16", "float16"]
MAX_SIDE = 16384


class LoadModel:
    """A model by its address: a saved model's folder, or `models:/name@alias`."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES: ClassVar = (MODEL,)
    RETURN_NAMES: ClassVar = ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("STRING", {"default": "artifacts/model"}), "dtype": (DTYPES,)}}

    def load(self, model: str, dtype: str) -> tuple[Any]:
        return (place(load_model(model, getattr(torch, dtype))),)


class Strokes:
    """Strokes of one kind from coordinates or tracks, added to those of another `Strokes` node."""

    CATEGORY, FUNCTION = CATEGORY, "make"
    RETURN_TYPES: ClassVar = (STROKES,)
    RETURN_NAMES: ClassVar = ("strokes",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = ("INT", {"default": 512, "min": 1, "max": MAX_SIDE})
        return {
            "required": {"width": side, "height": side, "move": (list(reversed(LORAS)),)},
            "optional": {
                "coordinates": ("STRING", {"default": "", "multiline": True, "tooltip": "JSON of a track node"}),
                "tracks": ("TRACKS", {"tooltip": "track_path (T, N, 2) in pixels, track_visibility (T, N)"}),
                "strokes": (STROKES,),
            },
        }

    def make(
        self,
        width: int,
        height: int,
        move: str,
        coordinates: str = "",
        tracks: dict[str, Any] | None = None,
        strokes: Trajectories | None = None,
    ) -> tuple[Trajectories]:
        """Strokes in pixels of a picture of `width` x `height`.

        Raises:
            ValueError: there are neither coordinates nor tracks, they cannot be read, or the sizes differ.
        """
        drawn = _drawn(coordinates, tracks, (width, height))
        if move == "camera":
            drawn = replace(drawn, strokes=(), camera_strokes=drawn.strokes)
        if strokes is None:
            return (drawn,)
        if strokes.canvas != drawn.canvas:
            raise ValueError(f"strokes: for {strokes.canvas[0]}x{strokes.canvas[1]} pixels, not {width}x{height}")
        return (
            replace(
                drawn,
                strokes=(*strokes.strokes, *drawn.strokes),
                camera_strokes=(*strokes.camera_strokes, *drawn.camera_strokes),
            ),
        )


class Sample:
    """A video of a picture. Strokes are in pixels of that picture."""

    CATEGORY, FUNCTION = CATEGORY, "sample"
    RETURN_TYPES: ClassVar = ("IMAGE",)
    RETURN_NAMES: ClassVar = ("frames",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = {"default": "", "multiline": True}
        return {
            "required": {
                "model": (MODEL,),
                "image": ("IMAGE",),
                "strokes": (STROKES,),
                "mode": (["follow the strokes", *MODES],),
                "prompt": ("STRING", text),
                "negative_prompt": ("STRING", text),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 200, "tooltip": "0: the model's own"}),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05}),
            }
        }

    def sample(
        self,
        model: Any,
        image: Tensor,
        strokes: Trajectories,
        mode: str,
        prompt: str,
        negative_prompt: str,
        seed: int,
        steps: int,
        strength: float,
    ) -> tuple[Tensor]:
        """Frames (T, H, W, 3) in 0..1. ComfyUI's progress bar follows the steps, and its stop button ends them."""
        first = Image.fromarray((image[0].clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8))
        if mode not in MODES:
            both = strokes.strokes and strokes.camera_strokes
            mode = "both" if both else "camera" if strokes.camera_strokes else "object"
        total = steps or model.settings.num_inference_steps
        result = model(
            first,
            prompt,
            strokes,
            mode,
            negative_prompt=negative_prompt,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            num_inference_steps=total,
            controlnet_conditioning_scale=strength,
            on_step=_follow(total),
        )
        return (torch.from_numpy(np.asarray(result.frames[0], np.float32)),)


def _drawn(coordinates: str, tracks: dict[str, Any] | None, canvas: tuple[int, int]) -> Trajectories:
    if tracks is not None:
        visibility = tracks.get("track_visibility")
        seen = None if visibility is None else np.asarray(visibility, bool)
        return from_tracks(np.asarray(tracks["track_path"], np.float64), seen, canvas)
    if not coordinates.strip():
        raise ValueError("coordinates: give coordinates or tracks")
    try:
        return parse_trajectories(json.loads(coordinates), canvas)
    except json.JSONDecodeError:
        raise ValueError("coordinates: expected the JSON text of a track node") from None


def _follow(total: int) -> Any:
    """What is called after each step: it moves ComfyUI's progress bar, and raises if the user has pressed stop."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:  # outside ComfyUI
        return None
    bar = ProgressBar(total)

    def after_step(latents: Any) -> None:
        bar.update(1)
        throw_exception_if_processing_interrupted()

    return after_step


NODE_CLASS_MAPPINGS = {
    "ImageConductorLoadModel": LoadModel,
    "ImageConductorStrokes": Strokes,
    "ImageConductorSample": Sample,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ImageConductorLoadModel": "Load Image Conductor model",
    "ImageConductorStrokes": "Image Conductor strokes",
    "ImageConductorSample": "Image Conductor video",
}

"""What the sampler is asked for by the page's form and drawing."""

import re
import secrets
from pathlib import Path
from typing import Any, cast

from PIL import Image

from models.errors import UserError
from models.geometry import cover_crop
from models.modes import MODES, Mode
from models.sampling.settings import MAX_CONTROL_SCALE, SamplingOptions
from models.serving.image import ImageError, read_image
from models.serving.make_video import Wish
from models.serving.studio.drawing import Drawing
from models.serving.studio.form import EQ_5, MAX_VARIATIONS, PLAIN, SOLVER_OF_MODEL, Form

MAX_PROMPT = 2000


def make_wish(drawing: Drawing, form: Form) -> Wish:
    """The form as what the sampler is asked for.

    Raises:
        UserError: a field is out of range; the message names it.
    """
    mode = cast(Mode, form.mode) if form.mode in MODES else drawing.mode
    drawing.trajectories.strokes_of(mode)
    for name, text in (("prompt", form.prompt), ("negative prompt", form.negative_prompt)):
        if len(text or "") > MAX_PROMPT:
            raise UserError(f"{name}: at most {MAX_PROMPT} characters, got {len(text)}")
        if any("\ud800" <= letter <= "\udfff" for letter in text or ""):
            raise UserError(f"{name}: holds half a character; type it again")
    if form.variations not in range(1, MAX_VARIATIONS + 1):
        raise UserError(f"variations: must be from 1 to {MAX_VARIATIONS}, got {form.variations}")
    seed = secrets.randbelow(2**31 - MAX_VARIATIONS)
    if form.locked:
        if form.seed is None or not 0 <= form.seed < 2**31 or form.seed % 1:
            raise UserError("seed: must be a whole number from 0 to 2147483647, or unlocked")
        seed = int(form.seed)
    keyframes, notes = _keyframes(drawing, form)
    return Wish(
        drawing.picture,
        drawing.trajectories,
        mode,
        form.prompt or "",
        form.negative_prompt or "",
        seed,
        options=_options(form),
        notes=(*drawing.notes, *notes),
        keyframes=keyframes,
    )


def _options(form: Form) -> SamplingOptions:
    """The sampling settings that the form sets. Raises UserError, see `make_wish`."""
    options = SamplingOptions()
    if form.steps:
        options["num_inference_steps"] = int(_within("steps", form.steps, 1, 200))
    if form.guidance:
        options["guidance_scale"] = _within("guidance", form.guidance, 1, 50)
    if form.solver != SOLVER_OF_MODEL:
        options["solver"] = cast(Any, form.solver)
    if form.trajectory_guidance == PLAIN:
        options["trajectory_guidance_scale"] = None
    elif form.trajectory_guidance == EQ_5:
        options["trajectory_guidance_scale"] = _within("l_trajs", form.l_trajs, 0, 50)
    if weights := _weights(form.personal_loras):
        options["personal_loras"] = weights
    if form.control_scale not in (None, 1):
        scale = _within("strength of the strokes", form.control_scale, 0, MAX_CONTROL_SCALE)
        options["controlnet_conditioning_scale"] = scale
    if form.control_start:
        options["control_guidance_start"] = _within("strokes act from", form.control_start, 0, 1)
    if form.control_end not in (None, 1):
        options["control_guidance_end"] = _within("strokes act up to", form.control_end, 0, 1)
    return options


def _weights(text: str) -> dict[str, float]:
    """Weights by name of "style=0.8, light=0.5". Raises UserError if it is anything else."""
    weights = {}
    for part in filter(None, (each.strip() for each in (text or "").split(","))):
        name, _, weight = part.rpartition("=")
        try:
            weights[name.strip()] = _within(f"personal LoRAs: {name[:40]}", float(weight), -100, 100)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError("personal LoRAs: expected names and weights, for example style=0.8, light=0.5") from None
    return weights


def _within(field: str, value: float | None, lowest: float, highest: float) -> float:
    if value is None or not lowest <= value <= highest:
        raise UserError(f"{field}: must be from {lowest:g} to {highest:g}{'' if value is None else f', got {value:g}'}")
    return float(value)


def _keyframes(drawing: Drawing, form: Form) -> tuple[tuple[tuple[int, Image.Image], ...], list[str]]:
    """The pictures of later frames, at the size of the drawing's, and what was changed on them."""
    files, numbers = form.keyframes or [], [part for part in re.split(r"[\s,]+", form.keyframe_numbers or "") if part]
    if len(files) != len(numbers) or not all(re.fullmatch("[0-9]{1,6}", number) for number in numbers):
        raise UserError(f"later pictures: {len(files)} files need as many frame numbers, for example 8, 15")
    placed, notes = [], []
    for number, file in zip(numbers, files, strict=True):
        try:
            seen = read_image(Path(file))
        except ImageError as error:
            raise UserError(f"later pictures: frame {number}: {str(error).split(': ', 2)[-1]}") from None
        crop = cover_crop(seen.image.size, drawing.picture.size)
        placed.append((int(number), crop.image(seen.image)))
        said = [*seen.notes, *([f"cropped {cut}" if (cut := crop.describe()) else ""])]
        notes += [f"picture of frame {number}: {each}" for each in said if each]
    return tuple(placed), notes

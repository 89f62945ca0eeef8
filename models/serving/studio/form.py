"""The form of the page: its fields and the values that leave a setting to the model."""

from typing import NamedTuple

SOLVER_OF_MODEL = "of the model"
PLAIN, EQ_5 = "plain guidance", "camera-free guidance"
MAX_VARIATIONS = 8


class Form(NamedTuple):
    """The page's form, field by field; None and "of the model" leave a setting to the model.

    control_scale, control_start, control_end: how strongly the strokes act, and the shares of the sampling between
    which they do; 1, 0 and 1 leave them to the model. keyframes: files of pictures of later frames. keyframe_numbers:
    their frames, as "8, 15". personal_loras: weights of the model's community LoRAs, as "style=0.8, light=0.5".
    variations: videos, with seeds that count up.
    """

    prompt: str
    negative_prompt: str
    mode: str
    seed: float | None
    locked: bool
    steps: float | None
    solver: str
    guidance: float | None
    trajectory_guidance: str
    l_trajs: float | None
    control_scale: float | None = None
    control_start: float | None = None
    control_end: float | None = None
    keyframes: list[str] | None = None
    keyframe_numbers: str = ""
    personal_loras: str = ""
    variations: int = 1

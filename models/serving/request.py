"""The body of a request to the service and of its answer, field by field."""

from collections.abc import Mapping
from typing import Any, cast

from PIL.Image import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from models.errors import UserError, field_problems
from models.geometry import Size
from models.modes import Mode
from models.sampling.settings import MAX_CONTROL_SCALE, SamplingOptions
from models.serving.image import MAX_IMAGE_BYTES, PixelBudget, decode_image
from models.serving.make_video import Wish
from models.strokes.stroke import MAX_POINTS, MAX_STROKES
from models.strokes.trajectories import parse_trajectories

EMPTY = {"image": "", "trajectories": [], "mode": "object", "prompt": ""}
MAX_LORA_WEIGHT = 100.0
MAX_KEYFRAMES = 16
CAMERA_FIELDS = ("move", "amount")
SETTINGS = (
    "num_inference_steps",
    "guidance_scale",
    "trajectory_guidance_scale",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
    "personal_loras",
)


class RequestError(UserError):
    """A request that is refused; the message begins with the field."""


class KeyframeField(BaseModel):
    """frame: its number, from 1. image: base64 of a PNG or JPEG that has the size of the request's first picture."""

    model_config = ConfigDict(strict=True, extra="forbid")

    frame: int = Field(ge=1, le=MAX_POINTS)
    image: str = Field(max_length=MAX_IMAGE_BYTES * 4 // 3)


class Request(BaseModel):
    """One video to make.

    image: base64 of a PNG or JPEG. trajectories, camera_trajectories: strokes [[[x, y], ...], ...] in pixels of that
    image, as it is shown; times: one number in 0..1 for each point of `trajectories`; visibility: true or false for
    each; frames: how many frames strokes of one point per frame were made for; camera_times: as `times`, for
    `camera_trajectories`; camera: a move by name instead of `camera_trajectories`, {"move": "zoom_in", "amount": 40}.
    keyframes: pictures of later frames. controlnet_conditioning_scale: how strongly the strokes act, 1 is as trained;
    control_guidance_start, control_guidance_end: shares of the sampling steps between which they act.
    Where a sampling setting is left out the model's own holds; a `trajectory_guidance_scale` of null is plain
    classifier-free guidance. Without a `seed` one is drawn; the response tells it. personal_loras: weights of the
    community LoRAs that the model was registered with.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    image: str = Field(max_length=MAX_IMAGE_BYTES * 4 // 3)
    trajectories: list[list[list[float]]]
    mode: str = Field(pattern="^(camera|object|both)$")
    prompt: str = Field(max_length=2000)
    camera_trajectories: list[list[list[float]]] | None = None
    camera: dict[str, str | float] | None = None
    times: list[list[float]] | None = None
    visibility: list[list[bool]] | None = None
    camera_times: list[list[float]] | None = None
    frames: int | None = Field(None, ge=1, le=MAX_POINTS)
    negative_prompt: str | None = Field(None, max_length=2000)
    seed: int | None = Field(None, ge=0, lt=2**63)
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=1, le=50, allow_inf_nan=False)
    trajectory_guidance_scale: float | None = Field(None, ge=0, le=50, allow_inf_nan=False)
    controlnet_conditioning_scale: float | None = Field(None, ge=0, le=MAX_CONTROL_SCALE, allow_inf_nan=False)
    control_guidance_start: float | None = Field(None, ge=0, lt=1, allow_inf_nan=False)
    control_guidance_end: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    keyframes: list[KeyframeField] | None = Field(None, max_length=MAX_KEYFRAMES)
    personal_loras: dict[str, float] | None = None
    output_format: str | None = Field(None, pattern="^(mp4|gif)$")

    _problem: str = PrivateAttr("")

    @model_validator(mode="wrap")
    @classmethod
    def _note_the_problem(cls, data: Any, handler: ModelWrapValidatorHandler["Request"]) -> "Request":
        """Leave it to `predict` to refuse a record: where MLflow does, its message repeats the whole request."""
        try:
            _check_lengths(data)
            _check_camera(data)
            return handler(data)
        except RequestError as error:
            request = handler(EMPTY)
            request._problem = str(error)
            return request
        except ValidationError as error:
            request = handler(EMPTY)
            request._problem = "; ".join(field_problems(error, KNOWN_NAMES))
            return request

    def wish(self, frame: Size, budget: PixelBudget) -> Wish:
        """What the sampler is asked for, with the picture at the size of the model's frame (width, height).

        Args:
            budget: pixels that are left for this video's pictures.

        Raises:
            UserError: a field is bad; the message begins with its name.
        """
        if self._problem:
            raise RequestError(self._problem)
        _check_weights(self.personal_loras or {})
        names = ("trajectories", "times", "visibility", "camera_trajectories", "camera_times", "camera", "frames")
        fields = {name: value for name in names if (value := getattr(self, name)) is not None}
        picture = decode_image(self.image, frame, budget)
        keyframes, notes = self._keyframes(picture.size, frame, budget)
        trajectories = parse_trajectories({"width": picture.size[0], "height": picture.size[1], **fields})
        mode = cast(Mode, self.mode)
        trajectories.strokes_of(mode)
        return Wish(
            picture.image,
            trajectories,
            mode,
            self.prompt,
            self.negative_prompt or "",
            self.seed,
            self.output_format or "mp4",
            cast(SamplingOptions, {name: getattr(self, name) for name in SETTINGS if name in self.model_fields_set}),
            picture.cropped,
            (*picture.notes, *notes),
            keyframes,
        )

    def _keyframes(
        self, size: Size, frame: Size, budget: PixelBudget
    ) -> tuple[tuple[tuple[int, Image], ...], list[str]]:
        """The pictures of later frames, and what was changed on them. Raises UserError, see `wish`."""
        placed, notes = [], []
        for i, each in enumerate(self.keyframes or []):
            try:
                picture = decode_image(each.image, frame, budget)
            except UserError as error:
                raise RequestError(f"keyframes[{i}].{error}") from None
            if picture.size != size:
                sizes = [f"{width}x{height}" for width, height in (picture.size, size)]
                raise RequestError(f"keyframes[{i}].image: {sizes[0]} pixels, but the first picture has {sizes[1]}")
            placed.append((each.frame, picture.image))
            notes += [f"keyframes[{i}].{note}" for note in picture.notes]
        return tuple(placed), notes


KNOWN_NAMES = (*Request.model_fields, *KeyframeField.model_fields, *CAMERA_FIELDS, "str", "float")


class Response(BaseModel):
    """video: base64 of `mime_type`. seconds: spent on it. cropped: what was cut off the image to fit the frame.

    notes: what was done to image, strokes or prompt that their owner may not expect, one sentence each.
    """

    video: str
    mime_type: str
    num_frames: int
    fps: int
    width: int
    height: int
    seed: int
    seconds: float
    cropped: str
    notes: list[str]


def _check_lengths(data: Any) -> None:
    """Refuse long lists before they are looked at one number after another.

    Raises:
        RequestError: more strokes, or points of a stroke, than are allowed.
    """
    for field in ("trajectories", "times", "visibility", "camera_trajectories", "camera_times"):
        strokes = data.get(field) if isinstance(data, dict) else None
        if not isinstance(strokes, list):
            continue
        if len(strokes) > MAX_STROKES:
            raise RequestError(f"{field}: up to {MAX_STROKES} strokes are allowed, got {len(strokes)}")
        for i, stroke in enumerate(strokes):
            if isinstance(stroke, list) and len(stroke) > MAX_POINTS:
                raise RequestError(f"{field}[{i}]: up to {MAX_POINTS} points are allowed, got {len(stroke)}")


def _check_camera(data: Any) -> None:
    """Raises RequestError for a camera move with fields of other names, which the reader of strokes would repeat."""
    camera = data.get("camera") if isinstance(data, dict) else None
    if isinstance(camera, dict) and camera.keys() - CAMERA_FIELDS:
        raise RequestError(f"camera: unknown field; expected {' and '.join(CAMERA_FIELDS)}")


def _check_weights(weights: Mapping[str, float]) -> None:
    """Raises RequestError for a weight of a community LoRA that is no number of a sensible size."""
    for weight in weights.values():
        if not abs(weight) <= MAX_LORA_WEIGHT:
            raise RequestError(f"personal_loras: a weight must be from -100 to 100, got {weight:g}")

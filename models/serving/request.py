"""The body of a request to the service and of its answer, field by field."""

from typing import Any, cast

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
from models.modes import Mode
from models.sampling.settings import SamplingOptions
from models.serving.image import MAX_IMAGE_BYTES, decode_image
from models.serving.make_video import Wish
from models.strokes.trajectories import parse_trajectories

EMPTY = {"image": "", "trajectories": [], "mode": "object", "prompt": ""}
SETTINGS = ("num_inference_steps", "guidance_scale", "trajectory_guidance_scale", "personal_loras")


class RequestError(UserError):
    """A request that is refused; the message begins with the field."""


class Request(BaseModel):
    """One video to make.

    image: base64 of a PNG or JPEG. trajectories, camera_trajectories: strokes [[[x, y], ...], ...] in pixels of that
    image, as it is shown; times: one number in 0..1 for each point of `trajectories`; visibility: true or false for
    each; camera_times: as `times`, for `camera_trajectories`; camera: a move by name instead of `camera_trajectories`,
    {"move": "zoom_in", "amount": 40}. Where a sampling setting is left out the
    model's own holds; a `trajectory_guidance_scale` of null is plain classifier-free guidance. Without a `seed` one is
    drawn; the response tells it. personal_loras: weights of the community LoRAs that the model was registered with.
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
    negative_prompt: str | None = Field(None, max_length=2000)
    seed: int | None = Field(None, ge=0, lt=2**63)
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=1, le=50, allow_inf_nan=False)
    trajectory_guidance_scale: float | None = Field(None, ge=0, le=50, allow_inf_nan=False)
    personal_loras: dict[str, float] | None = None
    output_format: str | None = Field(None, pattern="^(mp4|gif)$")

    _problem: str = PrivateAttr("")

    @model_validator(mode="wrap")
    @classmethod
    def _note_the_problem(cls, data: Any, handler: ModelWrapValidatorHandler["Request"]) -> "Request":
        """Leave it to `predict` to refuse a record: where MLflow does, its message repeats the whole request."""
        try:
            return handler(data)
        except ValidationError as error:
            request = handler(EMPTY)
            request._problem = "; ".join(field_problems(error))
            return request

    def wish(self) -> Wish:
        """What the sampler is asked for.

        Raises:
            UserError: a field is bad; the message begins with its name.
        """
        if self._problem:
            raise RequestError(self._problem)
        image = decode_image(self.image)
        names = ("trajectories", "times", "visibility", "camera_trajectories", "camera_times", "camera")
        fields = {name: value for name in names if (value := getattr(self, name)) is not None}
        trajectories = parse_trajectories({"width": image.width, "height": image.height, **fields})
        mode = cast(Mode, self.mode)
        trajectories.strokes_of(mode)
        return Wish(
            image,
            trajectories,
            mode,
            self.prompt,
            self.negative_prompt or "",
            self.seed,
            self.output_format or "mp4",
            cast(SamplingOptions, {name: getattr(self, name) for name in SETTINGS if name in self.model_fields_set}),
        )


class Response(BaseModel):
    """video: base64 of `mime_type`. seconds: spent on it. cropped: what was cut off the image to fit the frame."""

    video: str
    mime_type: str
    num_frames: int
    fps: int
    width: int
    height: int
    seed: int
    seconds: float
    cropped: str

"""The served model: an MLflow pyfunc, logged as code beside a saved model's folder (artifact `model`).

Body `{"inputs": [request, ...]}`, see `Request`; the answer has one `Response` for each. A bad field is refused with
status 400 and its name.
"""

import base64
import binascii
import io
import logging
import secrets
import threading
import time
from pathlib import Path
from typing import Any, cast

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, RESOURCE_EXHAUSTED
from mlflow.pyfunc.model import PythonModel
from PIL import Image, ImageOps
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from models.branches import Mode
from models.pipeline import ImageConductorPipeline
from models.trajectories import parse_trajectories, problems
from models.video import encode_gif, encode_mp4

MAX_REQUESTS, MAX_IMAGE_BYTES, MAX_IMAGE_SIDE, MAX_ASPECT = 8, 32 * 2**20, 8192, 8
ENCODERS = {"mp4": (encode_mp4, "video/mp4"), "gif": (encode_gif, "image/gif")}
EMPTY = {"image": "", "trajectories": [], "mode": "object", "prompt": ""}

log = logging.getLogger(__name__)


class Request(BaseModel):
    """One video to make.

    image: base64 of a PNG or JPEG. trajectories, camera_trajectories: strokes [[[x, y], ...], ...] in pixels of that
    image, as it is shown; times: one number in 0..1 for each point of `trajectories`; camera: a move by name instead of
    `camera_trajectories`, {"move": "zoom_in", "amount": 40}. Where a sampling setting is left out the
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
            request._problem = "; ".join(problems(error))
            return request


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


class Refusal(MlflowException):
    """Keeps its message: the scoring server would put the whole request in front of it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "message" or "message" not in vars(self):
            super().__setattr__(name, value)


class ImageConductorModel(PythonModel):
    """Answers one request at a time; a lock keeps the server's threads from sharing the networks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipeline: ImageConductorPipeline | None = None

    def load_context(self, context: Any) -> None:
        self._pipeline = load_pipeline(context.artifacts["model"])

    def predict(self, context: Any, model_input: list[Request], params: dict[str, Any] | None = None) -> list[Response]:
        """Make the videos.

        Raises:
            Refusal: INVALID_PARAMETER_VALUE names the bad field, RESOURCE_EXHAUSTED says that memory ran out,
                INTERNAL_ERROR is everything else, with details in the server's log only.
        """
        if not 1 <= len(model_input) <= MAX_REQUESTS:
            raise Refusal(f"inputs: 1 to {MAX_REQUESTS} records, got {len(model_input)}", INVALID_PARAMETER_VALUE)
        prepared = []
        for i, request in enumerate(model_input):
            try:
                prepared.append(arguments(request))
            except ValueError as error:
                raise Refusal(f"inputs[{i}].{error}", INVALID_PARAMETER_VALUE) from None
        return [self._answer(i, request, prepared[i]) for i, request in enumerate(model_input)]

    def _answer(self, index: int, request: Request, inputs: dict[str, Any]) -> Response:
        assert self._pipeline is not None
        try:
            with self._lock:
                return generate(self._pipeline, request, inputs)
        except ValueError as error:
            raise Refusal(f"inputs[{index}].{error}", INVALID_PARAMETER_VALUE) from None
        except torch.OutOfMemoryError:
            raise Refusal("out of memory; try fewer steps or later", RESOURCE_EXHAUSTED) from None
        except Exception:
            log.exception("request failed")
            raise Refusal("the video could not be made; see the server's log", INTERNAL_ERROR) from None


def load_pipeline(folder: str | Path) -> ImageConductorPipeline:
    """The saved model in `folder`, on a GPU if there is one."""
    pipeline = ImageConductorPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def registered_model_folder(address: str) -> Path:
    """Fetch the saved model behind `models:/name@alias` or `models:/name/version`.

    Raises:
        ValueError: there is no such model.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{address}/artifacts/model"))
    except (MlflowException, OSError) as error:
        raise ValueError(f"{address}: no such model in {mlflow.get_tracking_uri()}: {error}") from None


def arguments(request: Request) -> dict[str, Any]:
    """The request's image and strokes as the pipeline takes them.

    Raises:
        ValueError: a field is bad; the message begins with its name.
    """
    if request._problem:
        raise ValueError(request._problem)
    image = decode_image(request.image)
    names = ("trajectories", "times", "camera_trajectories", "camera")
    fields = {name: value for name in names if (value := getattr(request, name)) is not None}
    trajectories = parse_trajectories({"width": image.width, "height": image.height, **fields})
    trajectories.strokes_of(cast(Mode, request.mode))
    return {"image": image, "trajectories": trajectories}


def generate(pipeline: ImageConductorPipeline, request: Request, inputs: dict[str, Any]) -> Response:
    """Run the sampler and encode its video."""
    started = time.perf_counter()
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    settings = pipeline.settings
    trajectory_guidance_scale = settings.trajectory_guidance_scale
    if "trajectory_guidance_scale" in request.model_fields_set:
        trajectory_guidance_scale = request.trajectory_guidance_scale
    result = pipeline(
        **inputs,
        prompt=request.prompt,
        mode=cast(Mode, request.mode),
        negative_prompt=request.negative_prompt or "",
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        trajectory_guidance_scale=trajectory_guidance_scale,
        personal_loras=request.personal_loras,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    )
    frames = (np.asarray(result.frames[0]) * 255).round().astype(np.uint8)
    encode, mime_type = ENCODERS[request.output_format or "mp4"]
    return Response(
        video=base64.b64encode(encode(frames, settings.fps)).decode(),
        mime_type=mime_type,
        num_frames=len(frames),
        fps=settings.fps,
        width=frames.shape[2],
        height=frames.shape[1],
        seed=seed,
        seconds=round(time.perf_counter() - started, 3),
        cropped=result.cropped,
    )


def decode_image(text: str) -> Image.Image:
    """A base64 PNG or JPEG as an upright RGB picture.

    Raises:
        ValueError: no base64, no such picture, damaged, too large, or too long for its width.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("image: not valid base64") from None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            short, long = sorted(picture.size)
            if long > MAX_IMAGE_SIDE or long > MAX_ASPECT * short:
                raise ValueError(
                    f"image: {picture.width}x{picture.height} pixels; sides up to {MAX_IMAGE_SIDE} and a ratio up to "
                    f"{MAX_ASPECT}:1 are allowed"
                )
            picture.load()
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("image: not a readable PNG or JPEG") from None


mlflow.models.set_model(ImageConductorModel())

"""The served model: an MLflow pyfunc, logged as code beside a saved model's folder (artifact `model`).

Body `{"inputs": [request, ...]}`, see `Request`; the answer has one `Response` for each. A bad field is refused with
status 400 and its name. `models.serving.service` works with `plan` and `make`, the two halves of `predict`.
"""

import base64
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import mlflow
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, RESOURCE_EXHAUSTED
from mlflow.pyfunc.model import PythonModel

from models.errors import UserError
from models.precision import frozen_dtype
from models.sampling.pipeline import ImageConductorPipeline
from models.serving.image import PixelBudget
from models.serving.limits import Limits
from models.serving.load import load_model, place
from models.serving.make_video import Wish, make_video, preview
from models.serving.refusal import Refusal
from models.serving.request import Request, Response

log = logging.getLogger(__name__)

OnStep = Callable[[Callable[[], bytes]], None]


class PlannedVideo(NamedTuple):
    """A checked record of a request, and the sampling steps that it takes."""

    wish: Wish
    steps: int


class ImageConductorModel(PythonModel):
    """Answers one request at a time; a lock keeps the server's threads from sharing the networks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipeline: ImageConductorPipeline | None = None

    def load_context(self, context: Any) -> None:
        """Load the networks, on a GPU if there is one, in the precision that the model was registered with."""
        precision = (context.model_config or {}).get("precision", "no")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._pipeline = place(load_model(context.artifacts["model"], frozen_dtype(precision, device)))
        self._pipeline.set_progress_bar_config(disable=True)

    def predict(self, context: Any, model_input: list[Request], params: dict[str, Any] | None = None) -> list[Response]:
        """Make the videos.

        Raises:
            Refusal: INVALID_PARAMETER_VALUE names the bad field, RESOURCE_EXHAUSTED says that memory ran out,
                INTERNAL_ERROR is everything else, with details in the server's log only.
        """
        if params:
            raise Refusal("params: not supported; settings are fields of a record", INVALID_PARAMETER_VALUE)
        return [Response(**self.make(i, planned)) for i, planned in enumerate(self.plan(model_input))]

    def plan(self, records: Sequence[Any], limits: dict[str, Any] | None = None) -> list[PlannedVideo]:
        """Check all records of a request before any of them is worked on.

        Args:
            records: `Request` objects, or what JSON holds in their place.
            limits: fields of `Limits` that differ from its defaults.

        Raises:
            Refusal: INVALID_PARAMETER_VALUE names the bad field.
        """
        assert self._pipeline is not None
        known = {each.name for each in fields(Limits)}  # a newer service may have more
        allowed = Limits(**{name: value for name, value in (limits or {}).items() if name in known})
        if not 1 <= len(records) <= allowed.max_records:
            raise _bad(f"inputs: 1 to {allowed.max_records} records, got {len(records)}")
        settings, planned = self._pipeline.settings, []
        budget = PixelBudget(allowed.max_pixels)
        for i, record in enumerate(records):
            request = record if isinstance(record, Request) else Request.model_validate(record)
            try:
                wish = request.wish((settings.width, settings.height), budget)
                wish.pictures(settings.frames)
                self._check_names(wish)
                planned.append(PlannedVideo(wish, settings.changed(wish.options).num_inference_steps))
            except ValueError as error:
                raise _bad(_at(i, error)) from None
        work = sum(video.steps for video in planned) * settings.frames
        if work > allowed.max_work:
            most = allowed.max_work // settings.frames
            raise _bad(
                f"inputs[{len(planned) - 1}].num_inference_steps: {work // settings.frames} steps in all records "
                f"together; up to {most} are allowed"
            )
        return planned

    def _check_names(self, wish: Wish) -> None:
        """Raises UserError for a community LoRA that is not loaded. It does not repeat the name."""
        assert self._pipeline is not None
        networks = (self._pipeline.unet, self._pipeline.text_encoder)
        loaded = {name for network in networks for name in getattr(network, "peft_config", {})}
        if (wish.options.get("personal_loras") or {}).keys() - loaded:
            raise UserError(f"personal_loras: a name is not loaded; loaded: {', '.join(sorted(loaded)) or 'none'}")

    def make(self, index: int, planned: PlannedVideo, on_step: OnStep | None = None) -> dict[str, Any]:
        """Make one video: the fields of a `Response`.

        Args:
            index: the record's number, for messages.
            on_step: called after each sampling step with a function that gives a JPEG of the middle frame as it is by
                then. What it raises ends the sampling and is passed on as it is, if it is an MlflowException.

        Raises:
            Refusal: see `predict`.
        """
        pipeline = self._pipeline
        assert pipeline is not None
        given = None if on_step is None else lambda latents: on_step(lambda: preview(pipeline, latents()))
        try:
            with self._lock:
                started = time.perf_counter()
                video = make_video(pipeline, planned.wish, given)
                facts = video._asdict() | {"seconds": round(time.perf_counter() - started, 3)}
        except MlflowException:
            raise
        except ValueError as error:
            raise _bad(_at(index, error)) from None
        except torch.OutOfMemoryError:
            raise Refusal("out of memory; try fewer steps or later", RESOURCE_EXHAUSTED) from None
        except Exception:
            log.exception("request failed")
            raise Refusal("the video could not be made; see the server's log", INTERNAL_ERROR) from None
        facts |= {"video": base64.b64encode(facts.pop("data")).decode(), "notes": list(video.notes)}
        return Response(**facts).model_dump()


def _bad(message: str) -> Refusal:
    return Refusal(message, INVALID_PARAMETER_VALUE)


def _at(index: int, error: ValueError) -> str:
    """The message with the record's number before its field."""
    message = str(error)
    return f"inputs[{index}]{'' if message.startswith(':') else '.'}{message}"


mlflow.models.set_model(ImageConductorModel())

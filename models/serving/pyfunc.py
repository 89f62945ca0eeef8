"""The served model: an MLflow pyfunc, logged as code beside a saved model's folder (artifact `model`).

Body `{"inputs": [request, ...]}`, see `Request`; the answer has one `Response` for each. A bad field is refused with
status 400 and its name.
"""

import base64
import logging
import threading
import time
from typing import Any

import mlflow
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, RESOURCE_EXHAUSTED
from mlflow.pyfunc.model import PythonModel

from models.sampling.pipeline import ImageConductorPipeline
from models.serving.load import load_model, place
from models.serving.make_video import Wish, make_video
from models.serving.request import Request, Response

MAX_REQUESTS = 8

log = logging.getLogger(__name__)


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
        self._pipeline = place(load_model(context.artifacts["model"]))
        self._pipeline.set_progress_bar_config(disable=True)

    def predict(self, context: Any, model_input: list[Request], params: dict[str, Any] | None = None) -> list[Response]:
        """Make the videos.

        Raises:
            Refusal: INVALID_PARAMETER_VALUE names the bad field, RESOURCE_EXHAUSTED says that memory ran out,
                INTERNAL_ERROR is everything else, with details in the server's log only.
        """
        if not 1 <= len(model_input) <= MAX_REQUESTS:
            raise Refusal(f"inputs: 1 to {MAX_REQUESTS} records, got {len(model_input)}", INVALID_PARAMETER_VALUE)
        wishes = []
        for i, request in enumerate(model_input):
            try:
                wishes.append(request.wish())
            except ValueError as error:
                raise Refusal(f"inputs[{i}].{error}", INVALID_PARAMETER_VALUE) from None
        return [self._answer(i, wish) for i, wish in enumerate(wishes)]

    def _answer(self, index: int, wish: Wish) -> Response:
        assert self._pipeline is not None
        try:
            with self._lock:
                started = time.perf_counter()
                video = make_video(self._pipeline, wish)
                facts = video._asdict() | {"seconds": round(time.perf_counter() - started, 3)}
                return Response(video=base64.b64encode(facts.pop("data")).decode(), **facts)
        except ValueError as error:
            raise Refusal(f"inputs[{index}].{error}", INVALID_PARAMETER_VALUE) from None
        except torch.OutOfMemoryError:
            raise Refusal("out of memory; try fewer steps or later", RESOURCE_EXHAUSTED) from None
        except Exception:
            log.exception("request failed")
            raise Refusal("the video could not be made; see the server's log", INTERNAL_ERROR) from None


mlflow.models.set_model(ImageConductorModel())

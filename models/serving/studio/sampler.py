"""Where the studio's videos come from: a model in this process, or a scoring server.

One video is made at a time. A model is loaded once, in the background.
"""

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from models.errors import UserError
from models.serving.make_video import MadeVideo, Wish, make_video, preview

OnStep = Callable[[int, int, Callable[[], bytes] | None], None]
TIMEOUT = 1800  # seconds that a scoring server may take for a video
MAX_ANSWER = 256 * 2**20


class Cancelled(Exception):
    """The user has cancelled a video."""


class SamplerError(UserError):
    """No video could be made; the message says why."""


class Sampler(Protocol):
    """Makes one video at a time."""

    def status(self) -> str:
        """What the sampler is, or is waiting for: one line for the page."""

    def sample(self, wish: Wish, request: dict[str, Any], on_step: OnStep) -> MadeVideo:
        """Make a video; `request` is the same wish as a scoring server takes it.

        Args:
            on_step: called after each step with the steps done, the steps in all, and a function that gives a JPEG of
                the middle frame as it is by then. It may raise `Cancelled`. Before the first step, and where nothing is
                known, the function is None.
        """


class LocalSampler:
    """A model in this process, loaded by `load` in a thread of its own."""

    def __init__(self, address: str, load: Callable[[], Any]):
        self._address, self._load = address, load
        self._turn, self._loaded = threading.Lock(), threading.Event()
        self._pipeline: Any = None
        self._problem = ""
        self._began = time.monotonic()
        threading.Thread(target=self._load_it, daemon=True).start()

    def _load_it(self) -> None:
        try:
            self._pipeline = self._load()
            self._pipeline.set_progress_bar_config(disable=True)
        except (ValueError, OSError) as error:
            self._problem = str(error)
        except Exception as error:
            self._problem = f"--model: {self._address}: could not be loaded: {type(error).__name__}"
        self._loaded.set()

    def status(self) -> str:
        if self._problem:
            return f"No model: {self._problem}"
        if not self._loaded.is_set():
            return f"Loading the model {self._address}, {time.monotonic() - self._began:.0f} s so far. You can draw."
        settings = self._pipeline.settings
        return (
            f"Model {self._address}: {settings.frames} frames of {settings.width}x{settings.height}, "
            f"{settings.num_inference_steps} steps"
        )

    def sample(self, wish: Wish, request: dict[str, Any], on_step: OnStep) -> MadeVideo:
        self._loaded.wait()
        if self._problem:
            raise SamplerError(self._problem)
        pipeline = self._pipeline
        with self._turn:
            total = pipeline.settings.changed(wish.options).num_inference_steps
            on_step(0, total, None)
            done = count(1)
            return make_video(
                pipeline, wish, lambda latents: on_step(next(done), total, lambda: preview(pipeline, latents()))
            )


class RemoteSampler:
    """A scoring server. It tells nothing between the steps."""

    def __init__(self, url: str):
        self._url = url.rstrip("/")

    def status(self) -> str:
        return f"Videos are made by {self._url}"

    def sample(self, wish: Wish, request: dict[str, Any], on_step: OnStep) -> MadeVideo:
        if "solver" in wish.options:
            raise SamplerError("solver: a scoring server samples with the solver of its model; choose that one")
        body = json.dumps({"inputs": [request]}).encode()
        call = urllib.request.Request(f"{self._url}/invocations", body, {"Content-Type": "application/json"})
        on_step(0, 0, None)
        try:
            with urllib.request.urlopen(call, timeout=TIMEOUT) as answer:
                found = json.loads(answer.read(MAX_ANSWER))["predictions"][0]
            facts = {name: found[name] for name in MadeVideo._fields if name != "data"}
            return MadeVideo(base64.b64decode(found["video"]), **facts)
        except urllib.error.HTTPError as error:
            raise SamplerError(f"{self._url}: {_refusal(error.read(4096))}") from None
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise SamplerError(f"{self._url}: no video came back: {error}") from None


def _refusal(body: bytes) -> str:
    """The message of a server's refusal."""
    try:
        found = json.loads(body)
        return str(found.get("message") or found.get("detail") or found)[:500]
    except (ValueError, AttributeError):
        return "refused the request"

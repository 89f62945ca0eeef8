"""Where the studio's videos come from: a model in this process, or a scoring server.

One video is made at a time. A model is loaded once, in the background. The libraries that compute are imported there,
so that the page opens before.
"""

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from models.errors import UserError

if TYPE_CHECKING:
    from models.serving.make_video import MadeVideo, Wish

OnStep = Callable[[int, int, Callable[[], bytes] | None], None]
TIMEOUT = 1800  # seconds that a scoring server may take for a video
MAX_ANSWER = 256 * 2**20


class Cancelled(Exception):
    """The user has cancelled a video."""


class SamplerError(UserError):
    """No video could be made; the message says why."""


class Status(NamedTuple):
    """text: one line; share: of the loading that is done, None when nothing is loading; bad: there is no model."""

    text: str
    share: float | None = None
    bad: bool = False


class Sampler(Protocol):
    """Makes one video at a time."""

    def begin(self) -> None:
        """Load what is needed, in the background; calls after the first one do nothing."""

    def status(self) -> Status:
        """What the sampler is, or is waiting for."""

    def sample(self, wish: "Wish", request: dict[str, Any], on_step: OnStep) -> "MadeVideo":
        """Make a video; `request` is the same wish as a scoring server takes it.

        Args:
            on_step: called after each step with the steps done, the steps in all, and a function that gives a JPEG of
                the middle frame as it is by then. It may raise `Cancelled`. Before the first step, and where nothing is
                known, the function is None.
        """


class LocalSampler:
    """A model in this process, loaded by `load` in a thread of its own, from `begin` or the first video on.

    load: gets a function for the part that is being loaded and the share that is done before it.
    """

    def __init__(self, address: str, load: Callable[[Callable[[str, float], None]], Any]):
        self._address, self._load = address, load
        self._turn, self._beginning, self._loaded = threading.Lock(), threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._pipeline: Any = None
        self._problem = ""
        self._part, self._share = "libraries", 0.0
        self._began = time.monotonic()

    def begin(self) -> None:
        with self._beginning:
            if self._thread is None:
                self._began = time.monotonic()
                self._thread = threading.Thread(target=self._load_it, daemon=True)
                self._thread.start()

    def _load_it(self) -> None:
        try:
            self._pipeline = self._load(self._told)
            self._pipeline.set_progress_bar_config(disable=True)
        except (ValueError, OSError) as error:
            self._problem = str(error)
        except Exception as error:
            self._problem = f"--model: {self._address}: could not be loaded: {type(error).__name__}"
        self._loaded.set()

    def _told(self, part: str, share: float) -> None:
        self._part, self._share = part, share

    def status(self) -> Status:
        if self._problem:
            return Status(f"No model: {self._problem}", bad=True)
        if not self._loaded.is_set():
            seconds = 0 if self._thread is None else time.monotonic() - self._began
            return Status(f"Loading {self._address}: {self._part}, {seconds:.0f} s. You can draw.", self._share)
        settings = self._pipeline.settings
        return Status(
            f"Model {self._address}: {settings.frames} frames of {settings.width}x{settings.height}, "
            f"{settings.num_inference_steps} steps"
        )

    def sample(self, wish: "Wish", request: dict[str, Any], on_step: OnStep) -> "MadeVideo":
        from models.serving.make_video import make_video, preview

        self.begin()
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
    """A scoring server. It tells nothing between the steps. prepare: imports what its answers are read with."""

    def __init__(self, url: str, prepare: Callable[[], None] = lambda: None):
        self._url, self._prepare = url.rstrip("/"), prepare

    def begin(self) -> None:
        threading.Thread(target=self._prepare, daemon=True).start()

    def status(self) -> Status:
        return Status(f"Videos are made by {self._url}")

    def sample(self, wish: "Wish", request: dict[str, Any], on_step: OnStep) -> "MadeVideo":
        from models.serving.make_video import MadeVideo

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

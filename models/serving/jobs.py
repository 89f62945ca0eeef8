"""The queue of the service: one job is worked on, a few wait, each can be stopped between two sampling steps."""

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol

from mlflow.exceptions import MlflowException

from models.serving.body import HttpRefusal
from models.serving.limits import Limits
from models.serving.metrics import ServiceMetrics

State = Literal["queued", "running", "done", "failed", "cancelled"]
FIRST_GUESS = 2.0  # seconds of a sampling step, until one was measured
MEMORY = 0.8  # weight of earlier steps in the mean duration of a step


class Maker(Protocol):
    """The part of the served model that works; see `models.serving.pyfunc.ImageConductorModel`."""

    def make(self, index: int, planned: Any, on_step: Callable[[Callable[[], bytes]], None]) -> dict[str, Any]: ...


class ServedJob:
    """The videos of one request. `result` gets the list of response records, or an exception."""

    def __init__(self, planned: Sequence[Any]):
        self.id = uuid.uuid4().hex
        self.planned = list(planned)
        self.steps = sum(video.steps for video in planned)
        self.step = 0
        self.state: State = "queued"
        self.result: Future[list[dict[str, Any]]] = Future()
        self.preview: bytes | None = None
        self.wants_preview = False
        self.stopped: HttpRefusal | None = None


class JobQueue:
    """Runs jobs one after another in a thread of its own."""

    def __init__(self, maker: Maker, limits: Limits, metrics: ServiceMetrics):
        self._maker, self._limits, self._metrics = maker, limits, metrics
        self._waiting: OrderedDict[str, ServedJob] = OrderedDict()
        self._known: OrderedDict[str, ServedJob] = OrderedDict()
        self._running: ServedJob | None = None
        self._changed = threading.Condition()
        self._draining = False
        self._step_seconds = FIRST_GUESS
        threading.Thread(target=self._work, name="sampler", daemon=True).start()

    def submit(self, job: ServedJob, keep: bool = False) -> None:
        """Let a job wait for its turn. With `keep`, `get` finds it also after its end.

        Raises:
            HttpRefusal: the queue is full (429), or the service ends (503).
        """
        with self._changed:
            if self._draining:
                raise _ends()
            if len(self._waiting) >= self._limits.queue_length:
                raise HttpRefusal(
                    429,
                    "RESOURCE_EXHAUSTED",
                    f"busy: {len(self._waiting)} requests wait already; try again later",
                    self._seconds_until_free(),
                )
            self._waiting[job.id] = job
            if keep:
                self._known[job.id] = job
                self._forget()
            self._changed.notify_all()
        self._metrics.queue.set(len(self._waiting))

    def get(self, job_id: str) -> ServedJob | None:
        """A kept job."""
        return self._known.get(job_id)

    def position(self, job: ServedJob) -> int:
        """How many jobs are done before it; 0 for one that runs or has ended."""
        with self._changed:
            if job.id not in self._waiting:
                return 0
            return list(self._waiting).index(job.id) + (self._running is not None)

    def stop(self, job: ServedJob, reason: HttpRefusal) -> None:
        """End a job: at once if it waits, after its present step if it runs."""
        with self._changed:
            job.stopped = job.stopped or reason
            if self._waiting.pop(job.id, None):
                _finish(job, "cancelled", error=reason)
        self._metrics.queue.set(len(self._waiting))

    def drain(self) -> None:
        """Take nothing more, hand back what waits, and stop what runs once `shutdown_seconds` are over."""
        with self._changed:
            self._draining = True
            waiting, running = list(self._waiting.values()), self._running
        for job in waiting:
            self.stop(job, _ends())
        if running is not None:
            timer = threading.Timer(self._limits.shutdown_seconds, self.stop, (running, _ends()))
            timer.daemon = True
            timer.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: bool(self._waiting))
                _, job = self._waiting.popitem(last=False)
                self._running = job
                job.state = "running"
            self._metrics.queue.set(len(self._waiting))
            with self._metrics.seconds.time():
                self._run(job)

    def _run(self, job: ServedJob) -> None:
        limits, now = self._limits, time.monotonic
        deadline = now() + limits.base_seconds + limits.seconds_per_step * job.steps
        last = now()

        def on_step(preview: Callable[[], bytes]) -> None:
            nonlocal last
            job.step += 1
            self._metrics.steps.inc()
            self._step_seconds = MEMORY * self._step_seconds + (1 - MEMORY) * (now() - last)
            if now() > deadline:
                job.stopped = job.stopped or HttpRefusal(
                    504, "DEADLINE_EXCEEDED", f"stopped at step {job.step} of {job.steps}: over its time limit"
                )
            if job.stopped:
                raise _Stopped(str(job.stopped))
            if job.wants_preview:
                job.preview, job.wants_preview = preview(), False
            last = now()

        answers = []
        try:
            for i, planned in enumerate(job.planned):
                if job.stopped:
                    raise _Stopped(str(job.stopped))
                answers.append(self._maker.make(i, planned, on_step))
        except _Stopped:
            _finish(job, "cancelled", error=job.stopped)
        except Exception as error:
            _finish(job, "failed", error=error)
        else:
            _finish(job, "done", answers)

    def _seconds_until_free(self) -> int:
        """Whole seconds until a place in the queue is likely to be free: the rest of the running job."""
        left = self._running.steps - self._running.step if self._running else 1
        return max(1, min(600, round(left * self._step_seconds)))

    def _forget(self) -> None:
        """Keep as many ended jobs as are allowed, the newest."""
        ended = [job.id for job in self._known.values() if job.state not in ("queued", "running")]
        for job_id in ended[: max(0, len(ended) - self._limits.finished_jobs)]:
            del self._known[job_id]


class _Stopped(MlflowException):
    """Raised between two steps; the model passes exceptions of MLflow on."""


def _finish(
    job: ServedJob, state: State, answers: list[dict[str, Any]] | None = None, error: Exception | None = None
) -> None:
    job.state, job.planned, job.wants_preview = state, [], False
    if error is not None:
        job.result.set_exception(error)
    else:
        job.result.set_result(answers or [])


def _ends() -> HttpRefusal:
    return HttpRefusal(503, "TEMPORARILY_UNAVAILABLE", "the service ends; send the request to another or later", 5)

"""The service: an ASGI application in front of MLflow's scoring application.

POST   /invocations     the videos of a request; waits for them
POST   /jobs            the same body; answers at once with the job's id
GET    /jobs/{id}       state, position in the queue, step, preview; the videos when it is done
DELETE /jobs/{id}       stops it between two sampling steps
GET    /health, /ready  the process lives; the model is loaded
GET    /metrics         for Prometheus
GET    /ping, /version  MLflow's own

A client that leaves `/invocations` stops its job. Every refusal is JSON with `error_code` and a `message` that begins
with the field.
"""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from mlflow.exceptions import MlflowException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from models.serving.body import HttpRefusal, parse_records, read_body
from models.serving.jobs import JobQueue, ServedJob
from models.serving.limits import Limits
from models.serving.metrics import ServiceMetrics

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
NO_LONGER_ASKED = HttpRefusal(499, "CANCELLED", "stopped: its client has left")
DELETED = HttpRefusal(409, "CANCELLED", "stopped: it was deleted")
LOADING = HttpRefusal(503, "TEMPORARILY_UNAVAILABLE", "the model is being loaded; try again soon", 5)
BUSY_READING = HttpRefusal(429, "RESOURCE_EXHAUSTED", "busy: pictures of other requests are being read; try again", 5)
READING_SECONDS = 3.0  # that a request waits for its turn to be parsed and decoded; more answers 429 later
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
PATHS = ("/invocations", "/jobs", "/jobs/{job_id}")


class Service:
    """The application `app`, which answers requests once `open` has given it a model."""

    def __init__(self, limits: Limits):
        self.limits, self.metrics = limits, ServiceMetrics()
        self._model: Any = None
        self._scoring: Any = None
        self._jobs: JobQueue | None = None
        self._reading = asyncio.Lock()
        self.app = Starlette(
            routes=[
                Route("/invocations", self._counted("/invocations", self._invocations), methods=["POST"]),
                Route("/jobs", self._counted("/jobs", self._new_job), methods=["POST"]),
                Route("/jobs/{job_id}", self._counted("/jobs/{job_id}", self._job), methods=["GET", "DELETE"]),
                Route("/health", self._health),
                Route("/ready", self._ready),
                Route("/metrics", self._figures),
                Route("/ping", self._behind),
                Route("/version", self._behind),
            ],
            exception_handlers={HTTPException: _no_route},
        )
        self.app.router.redirect_slashes = False  # a redirect repeats the address

    def open(self, model: Any, scoring: Any) -> None:
        """Take requests.

        Args:
            model: an `ImageConductorModel`.
            scoring: MLflow's scoring application on the same model.
        """
        self._model, self._scoring = model, scoring
        self._jobs = JobQueue(model, self.limits, self.metrics)

    def drain(self) -> None:
        """Take no more requests and let the running one end, see `JobQueue.drain`."""
        if self._jobs is not None:
            self._jobs.drain()

    async def _invocations(self, request: Request) -> Response:
        job = ServedJob(await self._planned(request))
        jobs = self._opened()
        jobs.submit(job)
        done = asyncio.wrap_future(job.result)
        left = asyncio.create_task(_left(request))
        try:
            first: set[asyncio.Future[Any]] = {done, left}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                jobs.stop(job, NO_LONGER_ASKED)
                raise NO_LONGER_ASKED
            return _json(200, {"predictions": await done})
        finally:
            left.cancel()
            done.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def _new_job(self, request: Request) -> Response:
        job = ServedJob(await self._planned(request))
        jobs = self._opened()
        jobs.submit(job, keep=True)
        return _json(202, self._state(jobs, job), {"Location": f"/jobs/{job.id}"})

    async def _job(self, request: Request) -> Response:
        jobs = self._opened()
        job = jobs.get(request.path_params["job_id"])
        if job is None:
            raise HttpRefusal(404, "RESOURCE_DOES_NOT_EXIST", "job: there is none with this id")
        if request.method == "DELETE":
            jobs.stop(job, DELETED)
        elif job.state == "running":
            job.wants_preview = True
        return _json(200, self._state(jobs, job))

    def _state(self, jobs: JobQueue, job: ServedJob) -> dict[str, Any]:
        state: dict[str, Any] = {
            "id": job.id,
            "state": job.state,
            "position": jobs.position(job),
            "step": job.step,
            "steps": job.steps,
            "preview": base64.b64encode(job.preview).decode() if job.preview and job.state == "running" else None,
        }
        if job.result.done():
            error = job.result.exception()
            state |= {"predictions": job.result.result()} if error is None else {"error": _refusal(error)[1]}
        return state

    async def _planned(self, request: Request) -> list[Any]:
        """The checked records of a request. One body at a time is parsed and decoded.

        Raises:
            HttpRefusal: the body is refused, or those before it take longer than `READING_SECONDS` (429).
        """
        self._opened()
        body = await read_body(request, self.limits)

        def plan() -> list[Any]:
            return self._model.plan(parse_records(body, self.limits), asdict(self.limits))

        try:
            await asyncio.wait_for(self._reading.acquire(), READING_SECONDS)
        except TimeoutError:
            raise BUSY_READING from None
        try:
            return await asyncio.to_thread(plan)
        finally:
            self._reading.release()

    def _opened(self) -> JobQueue:
        if self._jobs is None:
            raise LOADING
        return self._jobs

    async def _health(self, request: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def _ready(self, request: Request) -> Response:
        return Response("\n", 200 if self._jobs else 503, media_type="application/json")

    async def _figures(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": PROMETHEUS})

    async def _behind(self, request: Request) -> Response:
        """MLflow's own answer."""
        return _Behind(self._scoring) if self._scoring is not None else Response("\n", 503)

    def _counted(self, path: str, handler: Handler) -> Handler:
        """The handler, with refusals as answers and every answer counted."""

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except (HttpRefusal, MlflowException) as error:
                response = _json(*_refusal(error))
            except ClientDisconnect:
                response = _json(*_refusal(NO_LONGER_ASKED))
            except Exception as error:
                log.exception("request failed")
                response = _json(*_refusal(error))
            self.metrics.requests.labels(path, response.status_code).inc()
            return response

        return answer


class _Behind(Response):
    """Hands the request on to another ASGI application."""

    def __init__(self, app: Any):
        super().__init__()
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


async def _left(request: Request) -> None:
    """Ends when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{HTTPStatus(error.status_code).phrase}; POST /invocations makes videos"
    return _json(error.status_code, {"error_code": "BAD_REQUEST", "message": message}, dict(error.headers or {}))


def _refusal(error: BaseException) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error."""
    if isinstance(error, HttpRefusal):
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return error.status, {"error_code": error.code, "message": error.message}, headers
    if isinstance(error, MlflowException):
        return error.get_http_status_code(), {"error_code": error.error_code, "message": error.message}, {}
    return 500, {"error_code": "INTERNAL_ERROR", "message": "it went wrong; see the server's log"}, {}


def _json(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, "application/json")

"""Malformed requests against the service, over real HTTP: `python -m benchmarks.serve_fuzz --requests 2000`.

The service runs as its own process on the shipped pocket model, with the limits of params.yaml. An answer is at fault
if its status is 5xx other than 503 and 504 with a reason, if it holds a traceback or repeats the request's text or
picture, if it is longer than 4 KB and no video, or if it takes more than 10 s. Good requests are sent in between. The
faults are listed, then the counts as JSON; the exit code is 1 if there was a fault.
"""

import argparse
import json
import select
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.hostile_requests import HostileRequest, hostile_requests
from benchmarks.pocket_service import PocketService, good_record, pocket_service

LONGEST_ANSWER = 4096  # bytes, of an answer without a video
LONGEST_SECONDS = 10.0
GIVE_UP_SECONDS = 60.0
GOOD_EVERY = 25  # hostile requests for each good one
PICTURE_PIECE = 24  # characters of a picture in base64 that an answer must not repeat
NO_HEAD = ("broken http", "unfinished", "trickle", "odd path", "bad length")  # may end without an answer


class Answer(NamedTuple):
    """status: 0 if the connection was closed without an answer, -1 if none came before the client gave up."""

    status: int
    body: bytes
    seconds: float


def send(port: int, request: HostileRequest) -> Answer:
    """Send a request as it is and read the answer."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), GIVE_UP_SECONDS) as connection:
        try:
            for part in request.parts:
                if select.select([connection], [], [], 0)[0]:
                    break
                connection.sendall(part)
                if request.pause and select.select([connection], [], [], request.pause)[0]:
                    break
        except TimeoutError:
            return Answer(-1, b"", time.monotonic() - began)
        except OSError:
            pass  # the answer may be there all the same
        try:
            method = request.parts[0].split(b" ", 1)[0].decode("latin-1")
            response = HTTPResponse(connection, method=method)
            response.begin()
            return Answer(response.status, response.read(), time.monotonic() - began)
        except TimeoutError:
            return Answer(-1, b"", time.monotonic() - began)
        except (OSError, HTTPException):
            return Answer(0, b"", time.monotonic() - began)


def faults(request: HostileRequest, answer: Answer) -> Iterator[str]:
    """What is wrong with an answer."""
    text = answer.body.decode("utf-8", "replace")
    if answer.status == -1:
        yield "no answer"
    if answer.status == 0 and request.kind not in NO_HEAD:
        yield "closed without an answer"
    if answer.status >= 500 and not (answer.status in (503, 504) and '"message"' in text):
        yield f"status {answer.status}"
    if "Traceback" in text or "stack_trace" in text or 'File "' in text:
        yield "traceback"
    if request.mark in text or _repeats_picture(request, text):
        yield "echo"
    if answer.status not in (200, 202) and len(answer.body) > LONGEST_ANSWER:
        yield f"{len(answer.body)} bytes"
    if answer.seconds > LONGEST_SECONDS:
        yield f"{answer.seconds:.1f} s"


def _repeats_picture(request: HostileRequest, text: str) -> bool:
    whole = b"".join(request.parts).decode("latin-1")
    start = whole.find('"image": "') + len('"image": "')
    piece = whole[start : start + PICTURE_PIECE]
    return len(piece) == PICTURE_PIECE and '"' not in piece and '"video"' not in text and piece in text


class Fuzz:
    """Shares the requests among some clients and collects what they find."""

    def __init__(self, service: PocketService, requests: Iterator[HostileRequest]):
        self._service, self._requests, self._lock = service, requests, threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.found: list[str] = []
        self.good: list[float] = []
        self.longest: tuple[float, str] = (0.0, "")
        self.sent = 0

    def run(self, clients: int) -> None:
        """Send all requests."""
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self) -> None:
        while True:
            with self._lock:
                request = next(self._requests, None)
                self.sent += 1
                number = self.sent
            if request is None:
                return
            answer = send(self._service.port, request)
            with self._lock:
                self.statuses[answer.status] += 1
                self.longest = max(self.longest, (round(answer.seconds, 1), request.kind))
                for fault in faults(request, answer):
                    self._note(f"request {number}, {request.kind}: {fault}: {answer.status} {answer.body[:300]!r}")
            if number % GOOD_EVERY == 0:
                self._ask_good()

    def _ask_good(self) -> None:
        began = time.monotonic()
        status, body = self._service.ask([good_record()])
        with self._lock:
            self.good.append(time.monotonic() - began)
            if status != 200 or len(json.loads(body)["predictions"]) != 1:
                self._note(f"good request: {status} {body[:300]!r}")

    def _note(self, fault: str) -> None:
        self.found.append(fault)
        print(fault, flush=True)


def measure(requests: int, seed: int, clients: int) -> dict[str, Any]:
    """Send the requests to a service of its own; returns counts, times and memory."""
    with tempfile.TemporaryDirectory() as folder, pocket_service(Path(folder)) as service:
        service.ask([good_record()])
        before = service.memory()
        fuzz = Fuzz(service, hostile_requests(requests, seed))
        fuzz.run(clients)
        log = service.log.read_text()
        return {
            "requests": sum(fuzz.statuses.values()),
            "statuses": {str(status): count for status, count in sorted(fuzz.statuses.items())},
            "faults": len(fuzz.found),
            "tracebacks_in_the_log": log.count("Traceback"),
            "longest_seconds": fuzz.longest,
            "good_requests": len(fuzz.good),
            "longest_good_seconds": round(max(fuzz.good, default=0.0), 1),
            "memory_mib": [round(before), round(service.memory())],
            "cpu_seconds": round(service.cpu_seconds()),
            "log_end": log[-2000:] if "Traceback" in log else "",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=2, help="requests at once; default: 2")
    options = parser.parse_args()
    figures = measure(options.requests, options.seed, options.clients)
    print(json.dumps(figures, indent=1))
    sys.exit(bool(figures["faults"]))


if __name__ == "__main__":
    main()

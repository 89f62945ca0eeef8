"""The service under load, over real HTTP: `python -m benchmarks.serve_load --seconds 600 --clients 8`.

Some clients ask for one video after another. One more asks for the largest work that is allowed, leaves while it is
worked on, and comes again. The service runs as its own process on the shipped pocket model, with the limits of
params.yaml. The figures: answers by status, their times, resident memory at the end of the first tenth and at the end,
and the sampling steps that were made although nobody waited for them. The exit code is 1 if a client that stayed failed
otherwise than by 429, or if memory grew by more than 5 %.
"""

import argparse
import json
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.pocket_service import PocketService, good_record, pocket_service
from models.serving.limits import Limits

LEAVES_AFTER, AWAY = 15.0, 5.0  # seconds that the client of the largest work waits, and that it then stays away
ALLOWED_GROWTH = 1.05  # resident memory at the end / at the end of the first tenth
MOST_STEPS = 200  # of one record
SETTLE_SECONDS = 10.0  # for the last step of a request whose client has left


class Load:
    """Clients of one service and what they have seen."""

    def __init__(self, service: PocketService, steps: int):
        self._service, self._steps, self._lock = service, steps, threading.Lock()
        self._end = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []
        self.memory: list[float] = []
        self.left = 0

    def run(self, seconds: float, clients: int) -> None:
        """Let so many clients ask for so long, and one more leave again and again."""
        threads = [threading.Thread(target=self._client, args=(seed,)) for seed in range(clients)]
        threads.append(threading.Thread(target=self._leaving_client))
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(min(1.0, seconds / 20))
            self.memory.append(self._service.memory())
        self._end.set()
        for thread in threads:
            thread.join()

    def _client(self, seed: int) -> None:
        while not self._end.is_set():
            began = time.monotonic()
            try:
                status, _ = self._service.ask([good_record(seed=seed, num_inference_steps=self._steps)])
            except OSError:
                status = 0
            with self._lock:
                self.statuses[status] += 1
                if status == 200:
                    self.times.append(time.monotonic() - began)
            if status == 429:
                self._end.wait(1.0)

    def _leaving_client(self) -> None:
        body = json.dumps({"inputs": largest_work()}).encode()
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        while not self._end.is_set():
            with socket.create_connection(("127.0.0.1", self._service.port), 60) as connection:
                connection.sendall(head.encode() + b"\r\n\r\n" + body)
                self._end.wait(LEAVES_AFTER)
            self.left += 1
            self._end.wait(AWAY)


def largest_work() -> list[dict[str, Any]]:
    """Records that together have as many steps as are allowed for the pocket model's 8 frames."""
    limits = Limits()
    steps = min(MOST_STEPS, limits.max_work // 8 // limits.max_records)
    return [good_record(num_inference_steps=steps)] * limits.max_records


def steps_made(port: int) -> int:
    """Sampling steps so far, by /metrics."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r"^image_conductor_steps_total (\S+)", text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def measure(seconds: float, clients: int, steps: int) -> dict[str, Any]:
    """Put a service of its own under load."""
    with tempfile.TemporaryDirectory() as folder, pocket_service(Path(folder)) as service:
        service.ask([good_record()])
        load = Load(service, steps)
        load.run(seconds, clients)
        time.sleep(SETTLE_SECONDS)
        made = steps_made(service.port)
        time.sleep(SETTLE_SECONDS)
        after_all_have_left = steps_made(service.port) - made
        wanted = 1 + load.statuses[200] * steps
        first = load.memory[: max(1, len(load.memory) // 10)][-1]
        times = sorted(load.times)
        log = service.log.read_text()
        return {
            "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
            "left": load.left,
            "seconds_p50": round(statistics.median(times), 1) if times else None,
            "seconds_p99": round(times[int(0.99 * (len(times) - 1))], 1) if times else None,
            "memory_mib": [round(first), round(load.memory[-1])],
            "memory_growth": round(load.memory[-1] / first, 3),
            "steps_for_nobody": made - wanted,
            "steps_after_all_have_left": after_all_have_left,
            "tracebacks_in_the_log": log.count("Traceback"),
            "cpu_seconds": round(service.cpu_seconds()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="sampling steps of each video; default: 4")
    options = parser.parse_args()
    figures = measure(options.seconds, options.clients, options.steps)
    print(json.dumps(figures, indent=1))
    failed = set(figures["statuses"]) - {"200", "429"}
    sys.exit(bool(failed or figures["memory_growth"] > ALLOWED_GROWTH or figures["steps_after_all_have_left"]))


if __name__ == "__main__":
    main()

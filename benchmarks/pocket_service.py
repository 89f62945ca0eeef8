"""The service as its own process on the shipped pocket model, for measurements over real HTTP."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import psutil

from examples.animate import pocket_pipeline

ROOT = Path(__file__).parents[1]
MIB = 2**20
READY_SECONDS = 600
STROKE = [[[136, 133], [206, 110]]]  # pixels of docs/example.png


class PocketService(NamedTuple):
    """A running service: its port, its process, and the file that its stderr goes to."""

    port: int
    process: psutil.Process
    log: Path

    def memory(self) -> float:
        """Resident memory in MiB."""
        return self.process.memory_info().rss / MIB

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, user and system."""
        times = self.process.cpu_times()
        return times.user + times.system

    def ask(self, records: list[dict[str, Any]], seconds: float = 300) -> tuple[int, bytes]:
        """Status and body of a request to /invocations."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(
                "POST", "/invocations", json.dumps({"inputs": records}), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def good_record(**fields: Any) -> dict[str, Any]:
    """A record that is right, of one sampling step, with some fields replaced or added."""
    image = base64.b64encode((ROOT / "docs/example.png").read_bytes()).decode()
    basic = {"image": image, "trajectories": STROKE, "mode": "object", "prompt": "a scene", "seed": 1}
    return basic | {"num_inference_steps": 1} | fields


@contextmanager
def pocket_service(folder: Path) -> Iterator[PocketService]:
    """Log the pocket model in an empty folder and serve it, with the limits of params.yaml, until the block ends."""
    pipeline = pocket_pipeline("object")
    pipeline.save_pretrained(folder / "model")
    mlflow.pyfunc.save_model(
        folder / "logged",
        python_model=str(ROOT / "models/serving/pyfunc.py"),
        artifacts={"model": str(folder / "model")},
        pip_requirements=[],
    )
    shutil.copy(ROOT / "params.yaml", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stages.serve", "--port", str(port), "--model", str(folder / "logged")]
    log = folder / "stderr.txt"
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=errors
        )
    try:
        _wait(port, server)
        yield PocketService(port, psutil.Process(server.pid), log)
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Return once the model is loaded. Raises RuntimeError if the server ends, or takes too long."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and server.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise RuntimeError("the service did not become ready")

"""`python -m stages.serve` as a process: ready when the model is loaded, and gone soon after SIGTERM."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest
import requests

from tests.unit import tiny
from tests.unit.test_service import record

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder to serve from, with a logged tiny model in it."""
    folder = tmp_path_factory.mktemp("serve")
    tiny.pipeline().save_pretrained(folder / "model")
    mlflow.pyfunc.save_model(
        folder / "logged",
        python_model=str(ROOT / "models" / "serving" / "pyfunc.py"),
        artifacts={"model": str(folder / "model")},
        pip_requirements=[],
    )
    text = (ROOT / "params.yaml").read_text()
    for old, new in {
        "max_work: 3200": "max_work: 9999",
        "shutdown_seconds: 30": "shutdown_seconds: 1",
        "body_seconds: 5": "body_seconds: 2",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    return folder


def start(folder: Path, model: str) -> tuple[subprocess.Popen, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stages.serve", "--port", str(port), "--model", model]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    return process, f"http://127.0.0.1:{port}"


def until_ready(process: subprocess.Popen, address: str) -> None:
    for _ in range(900):
        assert process.poll() is None, process.communicate()[1]
        try:
            if requests.get(f"{address}/ready", timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    raise AssertionError("not ready")


def test_it_serves_and_sigterm_hands_back_a_long_request(folder):
    process, address = start(folder, str(folder / "logged"))
    try:
        until_ready(process, address)
        good = requests.post(f"{address}/invocations", json={"inputs": [record()]}, timeout=60)
        assert good.json()["predictions"][0]["num_frames"] == tiny.FRAMES
        assert requests.get(f"{address}/ping", timeout=5).status_code == 200
        assert requests.get(f"{address}/version", timeout=5).text == mlflow.__version__

        for head in (b"", b"POST /invocations HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=20) as slow:
                slow.sendall(head)
                assert slow.recv(100).startswith(b"HTTP/1.1 408")

        answers = []
        body = {"inputs": [record(num_inference_steps=200)] * 8}
        long = threading.Thread(
            target=lambda: answers.append(requests.post(f"{address}/invocations", json=body, timeout=60))
        )
        long.start()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(20) == 0
        assert time.monotonic() - began < 15
        long.join()
        assert (answers[0].status_code, answers[0].json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    finally:
        process.kill()
        process.communicate()


def test_a_model_that_cannot_be_loaded_ends_with_one_line(folder):
    moved = folder / "moved"
    shutil.copytree(folder / "logged", moved)
    shutil.rmtree(moved / "artifacts")
    process, _ = start(folder, str(moved))
    said = process.communicate(timeout=120)[1]

    assert process.returncode == 1
    assert "Traceback" not in said
    assert "dvc repro --force --single-item register" in said.splitlines()[-1]

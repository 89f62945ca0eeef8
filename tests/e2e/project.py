"""A copy of the project's own files, its programs, and its service, for tests of the whole."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
SMALL = {
    "collect.synthetic.mixed": 14,
    "collect.synthetic.camera": 8,
    "collect.synthetic.width": 120,
    "collect.synthetic.height": 80,
    "collect.synthetic.frames": [18, 24],
    "clips.held_out": 0.4,
    "clips.validation": 0.2,
    "sparse_flows.draws": 1,
    "track_quality.scenes": 1,
    "track_quality.frames": 3,
    "motion_controlnet.dense_steps": 1,
    "motion_controlnet.sparse_steps": 1,
    "camera_lora.steps": 1,
    "object_lora.steps": 1,
    "sampler.num_inference_steps": 1,
    "evaluate.images": 1,
    "evaluate.trajectory_guidance_scales": [1.1],
    "register.max_cam_mc_ratio": 100.0,
    "register.max_obj_mc_ratio": 100.0,
    "compute.backend": "serial",
}


def copy_project(folder: Path) -> None:
    """Copy the files that git has or would have, without dvc.lock."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def commit(folder: Path) -> None:
    """Make the folder a git repository with one commit."""
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "start")


def small_project(folder: Path) -> None:
    """A copy of the project as a git repository, with the smallest parameters."""
    copy_project(folder)
    params = changed(yaml.safe_load((folder / "params.yaml").read_text()), SMALL)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    commit(folder)


def changed(params: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the values at some dotted keys replaced, in place.

    Raises:
        KeyError: there is no such key.
    """
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = params
        for section in sections:
            place = place[section]
        if last not in place:
            raise KeyError(key)
        place[last] = value
    return params


def run(folder: Path, *command: str, **variables: str) -> str:
    """What a program prints; variables: of its environment, beside those of this process."""
    environment = programs() | variables
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def programs() -> dict[str, str]:
    """The environment with the virtual environment's programs first, so that `python` in dvc.yaml is this one."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def served(folder: Path, *options: str, **variables: str) -> Iterator[int]:
    """Run the service, and give its port as soon as it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "stages.serve", "--port", str(port), *options],
        cwd=folder,
        env=programs() | variables,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def post(port: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and answer of a request."""
    address = f"http://127.0.0.1:{port}/invocations"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def picture(width: int, height: int) -> str:
    """A picture as a request holds it."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def frames_of(video: bytes) -> int:
    """The frames of an encoded video."""
    with av.open(io.BytesIO(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(240):
        assert server.poll() is None, "the server ended before it answered"
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer within two minutes")

"""Dockerfile and compose.yaml: what they name is there. No engine builds them here; `make install` itself is in CI."""

import fnmatch
import json
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def instructions(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name} (.*)$", DOCKERFILE)


def modules(text: str) -> list[str]:
    return re.findall(r"python[\",]*,? \"?-m\"?,? \"?([a-z_.]+)", text)


def test_the_image_is_installed_as_make_does_and_runs_without_root():
    [install] = [line for line in instructions("RUN") if "make install" in line]
    shell = install.replace('"$TORCH_INDEX"', "https://torch.example").partition("&&")[0]
    said = subprocess.run([*shlex.split(shell), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "/opt/image-conductor/bin/python -m pip install --constraint constraints.txt" in said.stdout
    assert "--index-url https://torch.example" in said.stdout
    assert DOCKERFILE.index("\nUSER conductor") > DOCKERFILE.index("make install")
    assert instructions("ENV")[0].startswith("PATH=/opt/image-conductor/bin:")


def test_it_serves_and_its_health_is_asked_for_at_the_same_port():
    command, health = json.loads(instructions("CMD")[0]), instructions("HEALTHCHECK")[0]
    port = command[command.index("--port") + 1]
    assert command[:3] == ["python", "-m", "stages.serve"]
    assert f":{port}/health" in health and instructions("EXPOSE") == [port]
    compile(json.loads(health.partition("CMD ")[2])[2], "health", "exec")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_one_port_for_command_health_and_host(name):
    service = SERVICES[name]
    [(host, outside, inside)] = [port.split(":") for port in service["ports"]]
    assert (host, outside) == ("127.0.0.1", inside), "a page without authentication stays on this machine"
    if "command" in service:
        command = " ".join(map(str, service["command"]))
        assert f"--port {inside}" in command
        assert f":{inside}/" in service["healthcheck"]["test"][-1]
        assert all(find_spec(module) for module in modules(command))


def test_the_build_gets_the_project_and_nothing_of_the_user():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    tops = {path.split("/")[0] for path in tracked}
    assert not [top for top in tops if any(fnmatch.fnmatch(top, pattern) for pattern in ignored)]
    kept_out = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()}
    missing = {name for name in kept_out - set(ignored) if f"**/{name}" not in ignored}
    assert missing == {"*.egg-info"}

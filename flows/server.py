"""Server, GPU limit, work pool, deployments and worker, started together and stopped together.

python -m flows.server          # http://127.0.0.1:4200, Ctrl-C stops everything
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from flows.dvc import GPU_SLOT, end_group
from stages.params import load_params

WORK_POOL = "pipeline"
SECONDS_TO_START = 90
SECONDS_TO_STOP = 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    arguments = parser.parse_args()
    if _in_use(arguments.host, arguments.port):
        sys.exit(f"port {arguments.port} of {arguments.host} is in use; choose another: make flows FLOWS_PORT=4201")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(arguments.host, arguments.port, load_params().flows.gpu_slots)


def serve(host: str, port: int, gpu_slots: int) -> None:
    """Start everything and wait until it is interrupted or one of the two processes ends."""
    environment = _environment(host, port)
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(_start(environment, "server", "start", "--host", host, "--port", str(port)))
        _wait_for(environment["PREFECT_API_URL"], running[0])
        _prefect(environment, "gcl", "delete", GPU_SLOT, check=False)
        _prefect(environment, "gcl", "create", GPU_SLOT, "--limit", str(gpu_slots))
        _prefect(environment, "work-pool", "create", WORK_POOL, "--type", "process", "--overwrite")
        _prefect(environment, "--no-prompt", "deploy", "--all")
        running.append(_start(environment, "worker", "start", "--pool", WORK_POOL))
        api = f"PREFECT_API_URL={environment['PREFECT_API_URL']}"
        print(
            f"\nflows and schedules: http://{host}:{port}\n"
            f"run one now:         {api} .venv/bin/prefect deployment run evaluate/evaluate\n"
            "stop:                Ctrl-C\n",
            flush=True,
        )
        while all(process.poll() is None for process in running):
            time.sleep(0.5)
        sys.exit("the Prefect server or its worker ended; see above")
    except KeyboardInterrupt:
        print("stopping")
    finally:
        for process in reversed(running):
            end_group(process, SECONDS_TO_STOP)


def _environment(host: str, port: int) -> dict[str, str]:
    """Prefect's state stays in the repository, and out of whatever else uses Prefect here."""
    root = Path.cwd()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **os.environ,
        "PREFECT_API_URL": f"http://{host}:{port}/api",
        "PWD": str(root),
        "PATH": path,
    }


def _start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", *arguments], env=environment, start_new_session=True, stdin=subprocess.DEVNULL
    )


def _prefect(environment: dict[str, str], *arguments: str, check: bool = True) -> None:
    """Run a command of Prefect; what it prints is shown only if it fails."""
    result = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if check and result.returncode:
        sys.exit(f"prefect {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")


def _wait_for(api: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    sys.exit(f"the Prefect server did not answer at {api} within {SECONDS_TO_START} s; see above")


def _in_use(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


if __name__ == "__main__":
    main()

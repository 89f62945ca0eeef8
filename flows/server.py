"""Server, GPU limit, work pool, automations, deployments and worker, started together and stopped together.

python -m flows.server          # http://127.0.0.1:4200, Ctrl-C stops everything

A server or worker that dies is started anew. The exit code is 0 after Ctrl-C, 143 after SIGTERM, and 1 if something
could not be started or died too often. Nothing lives on when this program is killed.
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
from contextlib import ExitStack
from pathlib import Path

from flows.keeper import kept
from flows.slots import GPU_SLOT
from stages.params import FlowsParams, load_params

_PREFECT = [sys.executable, "-m", "prefect"]
HEARTBEAT_SECONDS = 30  # seconds; between two heartbeats of a flow run; Prefect's least
WORK_POOLS = {"pipeline": "process", "pipeline-docker": "docker", "pipeline-kubernetes": "kubernetes"}
WORK_POOL = "pipeline"  # the pool of the worker that is started here
SECONDS_TO_START = 300
MOST_DEATHS = 5  # deaths of server and worker within SECONDS_OF_DEATHS; more end the program
SECONDS_OF_DEATHS = 300
EXIT_SIGTERM = 128 + signal.SIGTERM


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    arguments = parser.parse_args()
    if _in_use(arguments.host, arguments.port):
        sys.exit(f"port {arguments.port} of {arguments.host} is in use; choose another: make flows FLOWS_PORT=4201")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_SIGTERM))
    serve(arguments.host, arguments.port, load_params().flows)


def serve(host: str, port: int, params: FlowsParams) -> None:
    """Start everything, and keep server and worker alive until interrupted."""
    environment = _environment(host, port)
    try:
        with ExitStack() as server, ExitStack() as worker:
            running = {"server": _start_server(environment, server)}
            _set_up(environment, params)
            running["worker"] = _start_worker(environment, worker)
            api = f"PREFECT_API_URL={environment['PREFECT_API_URL']}"
            print(
                f"\nflows and schedules: http://{host}:{port}\n"
                f"run one now:         {api} .venv/bin/prefect deployment run evaluate/evaluate\n"
                "stop:                Ctrl-C\n",
                flush=True,
            )
            deaths: list[float] = []
            while True:
                time.sleep(0.5)
                for name, process in list(running.items()):
                    if process.poll() is None:
                        continue
                    deaths = [
                        *(each for each in deaths if each > time.monotonic() - SECONDS_OF_DEATHS),
                        time.monotonic(),
                    ]
                    if len(deaths) > MOST_DEATHS:
                        sys.exit(
                            f"the Prefect {name} ended with exit code {process.returncode}, once too often; see above"
                        )
                    print(
                        f"the Prefect {name} ended with exit code {process.returncode}; it is started anew", flush=True
                    )
                    if name == "server":
                        server.close()
                        running[name] = _start_server(environment, server)
                    else:
                        worker.close()
                        _run(environment, "-m", "flows.dead_runs", check=False)
                        running[name] = _start_worker(environment, worker)
    except KeyboardInterrupt:
        print("stopped")


def _start_server(environment: dict[str, str], stack: ExitStack) -> subprocess.Popen[bytes]:
    address = environment["PREFECT_API_URL"].removesuffix("/api").removeprefix("http://")
    host, _, port = address.rpartition(":")
    process = stack.enter_context(
        kept([*_PREFECT, "server", "start", "--host", host, "--port", port], environment=environment)
    )
    _wait_for(environment["PREFECT_API_URL"], process)
    return process


def _start_worker(environment: dict[str, str], stack: ExitStack) -> subprocess.Popen[bytes]:
    return stack.enter_context(kept([*_PREFECT, "worker", "start", "--pool", WORK_POOL], environment=environment))


def _set_up(environment: dict[str, str], params: FlowsParams) -> None:
    """The GPU limit, with all slots free, the work pools, the automations and the deployments."""
    prefect = ("-m", "prefect")
    _run(environment, "-m", "flows.dead_runs", check=False)
    _run(environment, *prefect, "gcl", "delete", GPU_SLOT, check=False)
    _run(environment, *prefect, "gcl", "create", GPU_SLOT, "--limit", str(params.gpu_slots))
    for name, kind in WORK_POOLS.items():
        _run(environment, *prefect, "work-pool", "create", name, "--type", kind, "--overwrite")
    _run(environment, *prefect, "--no-prompt", "deploy", "--all")
    _run(environment, "-m", "flows.notices", *([params.notify] if params.notify else []))


def _environment(host: str, port: int) -> dict[str, str]:
    """Prefect's state stays in the repository, and out of whatever else uses Prefect here."""
    root = Path.cwd()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        **os.environ,
        "PREFECT_API_URL": f"http://{host}:{port}/api",
        "PWD": str(root),
        "PATH": path,
    }


def _run(environment: dict[str, str], *arguments: str, check: bool = True) -> None:
    """Run a Python command; what it prints is shown only if it fails."""
    result = subprocess.run(
        [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if check and result.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")


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

"""Kills at random instants over the flows: worker, flow and server, with a stand-in pipeline of seconds.

python -m benchmarks.flow_faults --kills 10 --seed 0      # minutes; needs a free port

For each kill: seconds until DVC and the stage are gone, until the GPU slot is free, and whether a following run of the
flow ends as Completed. The exit code is 1 if a process is left after 30 s, a slot is lost, or a run does not end well.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
STAGES = ("foundation", "latents", "motion_controlnet", "camera_lora", "object_lora")
LIMIT = 30  # seconds; after which a process is an orphan and a slot is lost
PATIENCE = 300  # seconds; for a server to answer or a run to end
MARK = "FLOW_FAULTS"  # environment variable of everything that is started here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=4299)
    parser.add_argument("--stage-seconds", type=int, default=40, help="length of the stage that is killed")
    arguments = parser.parse_args()
    rows = campaign(arguments.kills, arguments.seed, arguments.port, arguments.stage_seconds)
    print(json.dumps(rows, indent=2))
    sys.exit(any(not row["good"] for row in rows))


def campaign(kills: int, seed: int, port: int, stage_seconds: int) -> list[dict[str, Any]]:
    """One row a kill: victim, seconds until children and slot are free (None: not within 30 s), `good`."""
    lots = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _project(folder, stage_seconds)
        environment = _environment(folder, port)
        program = _serve(folder, environment, port)
        try:
            rows = [_kill(lots, number, folder, environment, port) for number in range(kills)]
        finally:
            program.send_signal(signal.SIGTERM)
            code = program.wait(60)
        left = wait_until(lambda: not _ours(folder), LIMIT)
        rows.append({"victim": "SIGTERM of the program", "exit code": code, "children": left, "good": left is not None})
    return rows


def _kill(lots: random.Random, number: int, folder: Path, environment: dict[str, str], port: int) -> dict[str, Any]:
    victim = lots.choice(["flow", "worker", "server"])
    (folder / "input.txt").write_text(str(number))  # so that no stage comes out of DVC's cache
    run = _start_run(environment, folder)
    assert wait_until(lambda: bool(_stages(folder)), PATIENCE) is not None, "the stage did not start"
    time.sleep(lots.uniform(0, 8))
    stage = _stages(folder)
    process = _find(folder, victim)
    process.kill()
    row: dict[str, Any] = {"number": number, "victim": victim}
    if victim == "server":  # the flow goes on without it, and its slot stays taken until the stage has ended
        ended = wait_until(lambda: _state(port, run) == "COMPLETED", PATIENCE)
        row |= {"run": _state(port, run), "children": None if any(map(_alive, stage)) else 0.0}
    else:
        row["children"] = wait_until(lambda: not any(map(_alive, stage)), LIMIT)
        row["slot"] = wait_until(lambda: _slots(port) == 0, LIMIT)
        row["run ended"] = wait_until(lambda: _state(port, run) in ("CRASHED", "FAILED"), PATIENCE)
        row["run"] = _state(port, run)
        again = _start_run(environment, folder)
        ended = wait_until(lambda: _state(port, again) == "COMPLETED", PATIENCE)
    row["next run"] = "COMPLETED" if ended is not None else "not completed"
    row["slots taken"] = wait_until(lambda: _slots(port) == 0, LIMIT)
    row["good"] = None not in (row["children"], row.get("slot", 0), row["slots taken"], ended)
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def wait_until(true: Callable[[], bool], seconds: float) -> float | None:
    """Seconds until it is true, None if it does not get true."""
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        try:
            if true():
                return round(time.monotonic() - begin, 1)
        except OSError:  # the server is away
            pass
        time.sleep(0.2)
    return None


def _project(folder: Path, stage_seconds: int) -> None:
    """A DVC repository with the names of the training stages; `latents` takes the seconds."""
    (folder / "flows").symlink_to(ROOT / "flows")
    for name in ("prefect.yaml", "params.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    lines, before = ["stages:"], "input.txt"
    for stage in STAGES:
        work, made = f"sleep {stage_seconds} && " if stage == "latents" else "", f"{stage}.txt"
        lines.append(f"  {stage}: {{cmd: '{work}cp {before} {made}', deps: [{before}], outs: [{made}]}}")
        before = made
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)


def _environment(folder: Path, port: int) -> dict[str, str]:
    return {
        **os.environ,
        MARK: str(folder),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "DVC_NO_ANALYTICS": "1",
    }


def _serve(folder: Path, environment: dict[str, str], port: int) -> subprocess.Popen[bytes]:
    log = (folder / "server.log").open("wb")
    command = [sys.executable, "-m", "flows.server", "--port", str(port)]
    program = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    ready = wait_until(lambda: b"run one now" in (folder / "server.log").read_bytes(), PATIENCE)
    assert ready is not None, (folder / "server.log").read_text()
    return program


def _start_run(environment: dict[str, str], folder: Path) -> str:
    command = [sys.executable, "-m", "prefect", "deployment", "run", "train/train"]
    printed = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
    return printed.partition("UUID: ")[2].split()[0]


def _ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=5) as answer:
        return json.load(answer)


def _slots(port: int) -> int:
    return int(_ask(port, "v2/concurrency_limits/gpu")["active_slots"])


def _state(port: int, run: str) -> str:
    return str(_ask(port, f"flow_runs/{run}")["state_type"])


def _ours(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and _alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _stages(folder: Path) -> list[psutil.Process]:
    """DVC and what it runs, once the long stage runs."""
    running = [each for each in _ours(folder) if {"sleep", "dvc"} & set(_command(each))]
    return running if any("sleep" in _command(each) for each in running) else []


def _find(folder: Path, victim: str) -> psutil.Process:
    parts = {"flow": ("prefect.engine", "prefect.flow_engine"), "worker": ("worker",), "server": ("server",)}[victim]
    found = [each for each in _ours(folder) if set(parts) & set(_command(each)) and not _is_keeper(each)]
    return found[-1]


def _is_keeper(process: psutil.Process) -> bool:
    return any(part.endswith("flows/keeper.py") for part in _command(process))


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()

"""Kill the pipeline at random instants and compare what comes out: `python -m benchmarks.faults --kills 12`.

A copy of the project with the smallest parameters runs to its end undisturbed. Two copies more do so too: one of them
undisturbed, in the other `dvc repro` is killed by SIGKILL again and again: all its processes at once, DVC alone, the
stage alone, or one worker process. Each file that DVC or MLflow's registry knows as a result is then compared byte by
byte. After a kill, whatever still runs after 30 s is an orphan. The exit code is 1 if a file differs, an orphan or a
temporary file is left, or a run of MLflow is still RUNNING.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from tests.e2e.project import programs, small_project

KINDS = ("group", "dvc", "stage", "worker")
ORPHAN_SECONDS = 30.0
REFUSED_SECONDS = 600.0  # that a stage which lives on may hold its lock
LOG = "faults.log"


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """`dvc repro` as the leader of a new session."""
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=programs(), start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )


def finish(folder: Path) -> float:
    """Run the pipeline to its end; returns seconds.

    Raises:
        RuntimeError: it fails; the message has the end of its log.
    """
    began = time.monotonic()
    if start(folder).wait():
        raise RuntimeError((folder / LOG).read_text(errors="replace")[-3000:])
    return time.monotonic() - began


def kill(dvc: "subprocess.Popen[bytes]", kind: str, rng: np.random.Generator) -> str | None:
    """Kill one of the kinds of processes that run now; returns the kind, or None if there is none of it."""
    try:
        children = psutil.Process(dvc.pid).children(recursive=True)
        stages = [child for child in children if "stages." in " ".join(child.cmdline())]
        workers = [child for stage in stages[:1] for child in stage.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    if kind == "group":
        os.killpg(dvc.pid, signal.SIGKILL)
        return kind
    chosen = {"dvc": [psutil.Process(dvc.pid)], "stage": stages[:1], "worker": workers}[kind]
    if not chosen:
        return None
    try:
        chosen[rng.integers(len(chosen))].kill()
    except psutil.NoSuchProcess:
        return None
    return kind


def left_running(session: int, seconds: float) -> list[str]:
    """Commands of a session that still run after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        alive = [process for process in psutil.process_iter(["cmdline"]) if _session(process.pid) == session]
        if not alive or time.monotonic() > until:
            return [" ".join(process.info["cmdline"] or [])[-80:] for process in alive]
        time.sleep(0.5)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (OSError, psutil.NoSuchProcess):
        return None


def disturbed(folder: Path, kills: int, seconds: float, seed: int) -> dict[str, Any]:
    """Kill the pipeline so often, at instants spread over the `seconds` that it takes, then let it end."""
    rng = np.random.default_rng(seed)
    done: Counter[str] = Counter()
    orphans: list[str] = []
    while sum(done.values()) < kills:
        kind = KINDS[sum(done.values()) % len(KINDS)]
        dvc = start(folder)
        time.sleep(rng.uniform(1, 2 * seconds / kills + 6))
        if dvc.poll() is not None:
            break  # the end was reached before all kills
        killed = kill(dvc, kind, rng)
        if killed in (None, "worker"):
            os.killpg(dvc.pid, signal.SIGKILL)  # what has lost a worker would go on, as it should
        done[killed or "group"] += 1
        dvc.wait(REFUSED_SECONDS)
        orphans += left_running(dvc.pid, ORPHAN_SECONDS)
        left_running(dvc.pid, REFUSED_SECONDS)
    finish(folder)
    return {"kills": dict(done), "orphans": orphans}


def results(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the outputs in dvc.lock."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    outs = [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]
    files = [file for out in outs for file in (folder / out, *(folder / out).rglob("*")) if file.is_file()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Files that are in one only, or not the same."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def still_running(folder: Path) -> int:
    """Runs that MLflow takes for running."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=5000))


def measure(place: Path, kills: int, seed: int) -> dict[str, Any]:
    """Run the copies one after another in folders of `place`."""
    folders = {name: place / name for name in ("undisturbed", "again", "killed")}
    for folder in folders.values():
        folder.mkdir()
        small_project(folder)
    seconds = finish(folders["undisturbed"])
    first = results(folders["undisturbed"])
    finish(folders["again"])
    figures = {
        "seconds": round(seconds),
        "files": len(first),
        "differ_between_clean_runs": differing(first, results(folders["again"])),
    }
    if kills:
        figures |= disturbed(folders["killed"], kills, seconds, seed)
        figures["differ_after_kills"] = differing(first, results(folders["killed"]))
        figures["temporary_files"] = [
            path.relative_to(folders["killed"]).as_posix()
            for path in folders["killed"].rglob("*")
            if path.name.startswith(".tmp-") or path.suffix == ".tmp"
        ]
        figures["runs_still_running"] = still_running(folders["killed"])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12, help="0 compares two clean runs only; default: 12")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = measure(Path(place), options.kills, options.seed)
    print(json.dumps(figures, indent=1))
    bad = ("differ_between_clean_runs", "differ_after_kills", "orphans", "temporary_files", "runs_still_running")
    sys.exit(any(figures.get(name) for name in bad))


if __name__ == "__main__":
    main()

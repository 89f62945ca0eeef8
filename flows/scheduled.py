"""The four flows. Each runs in the repository's root; `make flows` puts them on a server with schedules.

python -m flows.scheduled everything
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import reports
from flows.dvc import repro
from stages.data.items import content_hash
from stages.params import Params, load_params
from stages.run.locks import LOCKS

CURATION = ("collect", "clips", "captions", "tracks", "sparse_flows", "track_quality", "curation_report")
TRAINING = ("foundation", "latents", "motion_controlnet", "camera_lora", "object_lora")
EVALUATION = ("evaluate", "register")
LOCK = Path("dvc.lock")
PIPELINE = FileLock(LOCKS / "flows.lock", thread_local=False)  # held by the flow that is at work, and its subflows


@flow
def recurate() -> State | None:
    """Bring the curated clips up to date with the sources of videos.

    While another flow is at work, it ends at once with the state Skipped: new clips would reach the stages of that flow
    that are still to come. The next run on the schedule makes up for it.
    """
    try:
        with _alone(wait=False):
            params, before = load_params(), _lock_hash()
            for stage in CURATION:
                repro(stage, params)
            reports.curation()
            _keep_lock("recurate", params, before)
    except Timeout:
        return Completed(name="Skipped", message="another flow is at work; start recurate again after it")
    return None


@flow
def train() -> None:
    """Bring the motion ControlNet and both LoRAs up to date. Waits for another flow that is at work."""
    with _alone():
        params, before = load_params(), _lock_hash()
        for stage in TRAINING:
            repro(stage, params)
        reports.training()
        _keep_lock("train", params, before)


@flow
def evaluate(force: bool = False) -> None:
    """Measure the model as it is and register it; nothing is curated or trained. Waits for another flow at work.

    Args:
        force: measure again though neither model, clips nor parameters changed.
    """
    with _alone():
        params, before = load_params(), _lock_hash()
        for stage in EVALUATION:
            repro(stage, params, single_item=True, force=force)
        reports.evaluation()
        _keep_lock("evaluate", params, before)


@flow
def everything() -> None:
    """From the sources of videos to the registered model. Waits for another flow that is at work."""
    with _alone():
        recurate()
        train()
        evaluate()


@contextmanager
def _alone(wait: bool = True) -> Iterator[None]:
    """Hold the pipeline, so that no other flow changes data between two stages.

    Raises:
        Timeout: another flow holds it, and `wait` is false.
    """
    LOCKS.mkdir(exist_ok=True)
    try:
        held = PIPELINE.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise
        get_run_logger().info("another flow is at work in this folder; this one waits for its end")
        held = PIPELINE.acquire(poll_interval=1)
    with held:
        yield


def _lock_hash() -> str:
    return content_hash(LOCK) if LOCK.exists() else "none"


def _keep_lock(name: str, params: Params, before: str) -> None:
    """Log what became of dvc.lock, and commit it if the parameters say so."""
    after = _lock_hash()
    if after == before:
        create_markdown_artifact("dvc.lock is as it was: everything was up to date.", key="dvc-lock")
        return
    text = LOCK.read_text(encoding="utf-8")
    create_markdown_artifact(
        f"dvc.lock changed, `{before[:12]}` to `{after[:12]}`\n\n```yaml\n{text}```", key="dvc-lock"
    )
    if params.flows.git_commit:
        subprocess.run(["git", "add", str(LOCK)], check=True)
        subprocess.run(["git", "commit", "--quiet", "-m", f"dvc.lock after {name}", "--", str(LOCK)], check=True)
        get_run_logger().info("committed dvc.lock")


if __name__ == "__main__":
    flows = {each.name: each for each in (recurate, train, evaluate, everything)}
    if len(sys.argv) != 2 or sys.argv[1] not in flows:
        sys.exit(f"usage: python -m flows.scheduled {{{','.join(flows)}}}")
    flows[sys.argv[1]]()

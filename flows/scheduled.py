"""The five flows. Each runs in the repository's root; `make flows` puts them on a server with schedules.

python -m flows.scheduled everything
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed

from flows import reports
from flows.dvc import repro
from flows.watching import source_digest
from models.errors import UserError
from stages.data.items import content_hash
from stages.params import Params, load_params
from stages.run.locks import LOCKS

CURATION = ("collect", "clips", "captions", "tracks", "sparse_flows", "track_quality", "curation_report")
TRAINING = ("foundation", "latents", "motion_controlnet", "camera_lora", "object_lora")
EVALUATION = ("evaluate", "register")
LOCK = Path("dvc.lock")
SEEN = Path(".cache/flows/sources.txt")  # digest of the sources at the last look
PIPELINE = FileLock(LOCKS / "flows.lock", thread_local=False)  # held by the flow that is at work


@flow
def recurate() -> State | None:
    """Bring the curated clips up to date with the sources of videos."""
    return _run("recurate", CURATION, reports.curation)


@flow
def train() -> State | None:
    """Bring the motion ControlNet and both LoRAs up to date."""
    return _run("train", TRAINING, reports.training)


@flow
def evaluate(force: bool = False) -> State | None:
    """Measure the model as it is and register it; nothing is curated or trained.

    Args:
        force: measure again though neither model, clips nor parameters changed.
    """
    return _run("evaluate", EVALUATION, reports.evaluation, single_item=True, force=force)


@flow
def everything() -> State | None:
    """From the sources of videos to the registered model."""
    try:
        with _alone(load_params()):
            for part in (recurate, train, evaluate):
                state = part(return_state=True)
                if not state.is_completed():
                    return Failed(message=state.message)
    except Timeout:
        return _waited_in_vain()
    return None


@flow
def watch() -> State | None:
    """Start `recurate` if a source of videos has changed since the last look. Only names, sizes and times are read."""
    try:
        now = source_digest(load_params())
    except UserError as error:
        return Failed(message=f"stage:  watch\ncause:  {error}\nremedy: see the cause; the next look tries again")
    before = SEEN.read_text(encoding="utf-8") if SEEN.exists() else ""
    if now == before:
        return Completed(message="the sources are as they were")
    run_deployment("recurate/recurate", timeout=0, as_subflow=False)
    SEEN.parent.mkdir(parents=True, exist_ok=True)
    SEEN.write_text(now, encoding="utf-8")
    return Completed(message="a source has changed: recurate was started")


def _run(
    name: str,
    stages: tuple[str, ...],
    report: Callable[[], None],
    single_item: bool = False,
    force: bool = False,
) -> State | None:
    """Bring stages up to date, one after the other, with no other flow in between; Failed as soon as one fails."""
    params = load_params()
    try:
        with _alone(params):
            before = _lock_hash()
            for stage in stages:
                state = repro(stage, params, single_item=single_item, force=force, return_state=True)
                if not state.is_completed():
                    return Failed(message=state.message)
            report()
            _keep_lock(name, params, before)
    except Timeout:
        return _waited_in_vain()
    return None


@contextmanager
def _alone(params: Params) -> Iterator[None]:
    """Hold the pipeline: no other flow changes data between two stages of this one. Its subflows may enter.

    Raises:
        Timeout: another flow held it for `flows.wait_minutes`.
    """
    LOCKS.mkdir(exist_ok=True)
    with PIPELINE.acquire(timeout=60 * params.flows.wait_minutes, poll_interval=1):
        yield


def _waited_in_vain() -> State:
    return Failed(
        message="stage:  none was started\n"
        "cause:  another flow was at work in this folder for flows.wait_minutes\n"
        "remedy: run this flow again after it, or raise flows.wait_minutes in params.yaml"
    )


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
    flows = {each.name: each for each in (recurate, train, evaluate, everything, watch)}
    if len(sys.argv) != 2 or sys.argv[1] not in flows:
        sys.exit(f"usage: python -m flows.scheduled {{{','.join(flows)}}}")
    end = flows[sys.argv[1]](return_state=True)
    if not end.is_completed():
        sys.exit(f"{sys.argv[1]}: {end.name}\n{end.message}")

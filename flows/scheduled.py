"""The four flows. Each runs in the repository's root; `make flows` puts them on a server with schedules.

python -m flows.scheduled everything
"""

import subprocess
import sys
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows import reports
from flows.dvc import repro
from stages.data.items import content_hash
from stages.params import Params, load_params

CURATION = ("collect", "clips", "captions", "tracks", "sparse_flows", "track_quality", "curation_report")
TRAINING = ("foundation", "latents", "motion_controlnet", "camera_lora", "object_lora")
EVALUATION = ("evaluate", "register")
LOCK = Path("dvc.lock")


@flow
def recurate() -> None:
    """Bring the curated clips up to date with the sources of videos."""
    params, before = load_params(), _lock_hash()
    for stage in CURATION:
        repro(stage, params)
    reports.curation()
    _keep_lock("recurate", params, before)


@flow
def train() -> None:
    """Bring the motion ControlNet and both LoRAs up to date."""
    params, before = load_params(), _lock_hash()
    for stage in TRAINING:
        repro(stage, params)
    reports.training()
    _keep_lock("train", params, before)


@flow
def evaluate(force: bool = False) -> None:
    """Measure the model as it is and register it; nothing is curated or trained.

    Args:
        force: measure again though neither model, clips nor parameters changed.
    """
    params, before = load_params(), _lock_hash()
    for stage in EVALUATION:
        repro(stage, params, single_item=True, force=force)
    reports.evaluation()
    _keep_lock("evaluate", params, before)


@flow
def everything() -> None:
    """From the sources of videos to the registered model."""
    recurate()
    train()
    evaluate()


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

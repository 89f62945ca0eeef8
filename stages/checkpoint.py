"""The state of a training stage on disk: whole or absent, and found only by the run that it belongs to."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.params import Training
from stages.training_items import TrainingItems

FOLDER = Path("checkpoints")
SHAPING_CODE = (  # modules whose change makes a checkpoint that of another run
    "models.checkpointing",
    "models.conditions",
    "models.denoiser",
    "models.diffusion",
    "models.flow_maps",
    "models.networks",
    "stages.training",
    "stages.training_items",
    "stages.validation",
)


@dataclass
class Best:
    """The moving averages that moved held-out clips best so far; weights on the CPU."""

    step: int
    error: float
    weights: list[Tensor]


@dataclass
class Progress:
    """How far a run is: a row of losses per step, a row per validation, and the best weights."""

    losses: list[dict[str, float]] = field(default_factory=list)
    errors: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None

    @property
    def step(self) -> int:
        return len(self.losses)

    def add_error(self, error: float, weights: Sequence[Tensor]) -> None:
        """Take the motion error of the present step; its weights are kept if it is the lowest."""
        self.errors.append({"step": self.step, "motion_error": error})
        if self.best is None or error < self.best.error:
            self.best = Best(self.step, error, [weight.detach().cpu().clone() for weight in weights])

    def out_of_patience(self, patience: int | None, since: int) -> bool:
        """Whether `patience` validations after step `since` brought nothing better; None waits for ever."""
        if patience is None or self.best is None:
            return False
        return sum(row["step"] > max(since, self.best.step) for row in self.errors) >= patience


class Checkpoint:
    """Where one run keeps its weights, optimizer, moving average and progress."""

    def __init__(
        self,
        stage: str,
        settings: Training,
        steps: int,
        network: nn.Module,
        parameters: list[nn.Parameter],
        items: TrainingItems,
        states: dict[str, Any],
    ):
        """`states`: what has a state of its own (optimizer, schedule, moving average), by name."""
        self.parameters, self.states = parameters, states
        self.folder = FOLDER / stage
        self.file = self.folder / f"{_key(settings, steps, network, items)}.pt"

    def load(self, device: torch.device) -> Progress:
        """Put weights and states back; the progress of the run, an empty one if there is no checkpoint of it."""
        if not self.file.is_file():
            return Progress()
        saved = torch.load(self.file, map_location=device, weights_only=True)
        with torch.no_grad():
            for parameter, value in zip(self.parameters, saved["parameters"], strict=True):
                parameter.copy_(value)
        for name, state in self.states.items():
            state.load_state_dict(saved[name])
        best = saved["best"] and Best(**saved["best"])
        if best:
            best.weights = [weight.cpu() for weight in best.weights]
        return Progress(saved["losses"], saved["errors"], best)

    def save(self, progress: Progress) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".tmp")
        saved = {
            "parameters": [parameter.detach().cpu() for parameter in self.parameters],
            **{name: state.state_dict() for name, state in self.states.items()},
            "losses": progress.losses,
            "errors": progress.errors,
            "best": progress.best and vars(progress.best),
        }
        torch.save(saved, temporary)
        os.replace(temporary, self.file)

    def remove(self) -> None:
        """Delete this run's checkpoint, and those of other runs of the stage."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _key(settings: Training, steps: int, network: nn.Module, items: TrainingItems) -> str:
    """A hash of settings, steps, start weights, items and code."""
    digest = hashlib.sha256()
    described = [settings.model_dump(mode="json"), steps, items.frames]
    digest.update(json.dumps([*described, [clip.clip_id for clip in items.clips]]).encode())
    for parameter in network.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    code = [Path(str(sys.modules[name].__file__)) for name in SHAPING_CODE]
    for path in [*(clip.draws for clip in items.clips), *code]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]

"""The saved state of a training run. The file is whole or absent, and only the same run finds it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.data.items import content_hash
from stages.data.paths import FOUNDATION, draws_folder, latents_folder, tracks_folder
from stages.params import Split, TrainingParams
from stages.run.code import code_of
from stages.train.items import TrainingItems


@dataclass
class Best:
    """The moving averages with the lowest validation error so far; weights on the CPU."""

    step: int
    error: float
    weights: list[Tensor]


@dataclass
class Progress:
    """The progress of a run: a row of losses per step, a row per validation, and the best weights."""

    losses: list[dict[str, float]] = field(default_factory=list)
    errors: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None

    @property
    def step(self) -> int:
        return len(self.losses)

    def add_error(self, error: float, weights: Sequence[Tensor]) -> None:
        """Note the motion error of the present step. The weights are kept if the error is the lowest."""
        self.errors.append({"step": self.step, "motion_error": error})
        if self.best is None or error < self.best.error:
            self.best = Best(self.step, error, [weight.detach().cpu().clone() for weight in weights])

    def facts(self) -> dict[str, Any]:
        """The progress as the facts of a checkpoint."""
        return {"losses": self.losses, "errors": self.errors, "best": self.best and vars(self.best)}

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None) -> "Progress":
        """Read the progress from a checkpoint's facts; without facts, a new run."""
        if facts is None:
            return cls()
        best = facts["best"] and Best(**facts["best"])
        if best:
            best.weights = [weight.cpu() for weight in best.weights]
        return cls(facts["losses"], facts["errors"], best)

    def out_of_patience(self, patience: int | None, since: int) -> bool:
        """Early stopping: whether `patience` validations after step `since` brought nothing better. None: never."""
        if patience is None or self.best is None:
            return False
        return sum(row["step"] > max(since, self.best.step) for row in self.errors) >= patience


class Checkpoint:
    """The checkpoint file of one run: weights, states (optimizer, schedule, ...) and facts about the run."""

    def __init__(self, file: Path, parameters: Sequence[nn.Parameter], states: Mapping[str, Any]):
        """`states`: optimizer, schedule, moving average and the like, by name."""
        self.file, self.parameters, self.states = file, parameters, states

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """Put weights and states back and return the facts; None if there is no checkpoint of this run."""
        if not self.file.is_file():
            return None
        saved = torch.load(self.file, map_location=device, weights_only=True)
        with torch.no_grad():
            for parameter, value in zip(self.parameters, saved["parameters"], strict=True):
                parameter.copy_(value)
        for name, state in self.states.items():
            state.load_state_dict(saved["states"][name])
        return saved["facts"]

    def save(self, facts: Mapping[str, Any]) -> None:
        """Write the checkpoint, with facts made of numbers, texts, lists, mappings and tensors."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        saved = {
            "parameters": [parameter.detach().cpu() for parameter in self.parameters],
            "states": {name: state.state_dict() for name, state in self.states.items()},
            "facts": dict(facts),
        }
        temporary = self.file.with_suffix(".tmp")
        try:
            with open(temporary, "wb") as file:
                torch.save(saved, file)
                file.flush()
                os.fsync(file.fileno())  # before it replaces the last one
            os.replace(temporary, self.file)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete this run's checkpoint, and those of other runs in its folder."""
        shutil.rmtree(self.file.parent, ignore_errors=True)


def shaping(run: Callable[..., None], split: Split) -> list[str]:
    """What shapes a training run beside its settings: the code, the foundation, and the recipes of the clips' parts.

    Every file of the foundation counts by its content: weights, configs, schedule, latent space.
    """
    recipes = [str(folder(split).recipe()) for folder in (tracks_folder, draws_folder, latents_folder)]
    files = sorted(path for path in FOUNDATION.rglob("*") if path.is_file())
    base = [f"{path.relative_to(FOUNDATION).as_posix()} {content_hash(path)}" for path in files]
    return [*code_of(run).values(), *base, *recipes]


def training_key(
    settings: TrainingParams, steps: int, network: nn.Module, items: TrainingItems, shaped_by: Sequence[str]
) -> str:
    """The key of a checkpoint: a hash of settings, steps, start weights, clips, and what `shaping` returns."""
    digest = hashlib.sha256()
    clips = [[clip.clip_id, clip.caption] for clip in items.clips]
    described = [settings.model_dump(mode="json"), steps, items.frames, clips, *shaped_by]
    digest.update(json.dumps(described).encode())
    for parameter in network.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:20]

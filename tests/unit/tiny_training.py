"""A training stage of the tiny model: `python -m tests.unit.tiny_training` trains it in the folder $TINY_TRAINING."""

import os
import signal
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.lora.sets import add_lora
from models.networks.networks import motion_controlnet_like
from stages.params import load_params
from stages.train.loop import Job, train
from tests.unit import tiny

STEPS = 4
SETTINGS = load_params(Path(__file__).parents[2] / "params.yaml").camera_lora


class Items(torch.utils.data.Dataset):
    """Random clips, each a function of its index; `fail_at` plays the machine that goes down, `stop_at` the scheduler
    that announces it. The loader reads the items of a step while the step before it is under way.
    """

    def __init__(self, fail_at: int | None = None, stop_at: int | None = None):
        self.clips: list = []
        self.frames, self.fail_at, self.stop_at = tiny.FRAMES, fail_at, stop_at

    def __getitem__(self, index):
        if index == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if index == self.fail_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(index)
        shape = (tiny.CHANNELS, tiny.FRAMES, 4, 6)
        return {
            "latents": torch.randn(shape, generator=generator),
            "noise": torch.randn(shape, generator=generator),
            "text": torch.randn(24, tiny.TEXT, generator=generator),
            "tracks": torch.rand(tiny.FRAMES, 2, 2, generator=generator) * 15,
            "visibility": torch.ones(tiny.FRAMES, 2, dtype=torch.bool),
            "u": torch.rand((), generator=generator),
            "drop_caption": torch.tensor(index % 3 == 0),
        }


class Errors:
    """A validation that reads its errors from a list, and remembers the weights that it saw."""

    def __init__(self, errors: list[float]):
        self.items, self._errors = list(errors), iter(errors)
        self.shown = None
        self.weights: list[list[torch.Tensor]] = []
        self.parameters: list = []

    def motion_error(self, foundation, network, switch, accelerator, batch_size):
        self.weights.append([parameter.detach().clone() for parameter in self.parameters])
        return next(self._errors)


class Listener:
    def __init__(self):
        self.heard: list[tuple[int, dict]] = []

    def metrics(self, values, step=0):
        assert all(value == value for value in values.values())
        self.heard.append((step, values))

    def picture(self, pixels, name, folder):
        raise AssertionError("the validation of these tests has no pictures")


def make_job(foundation, fail_at=None, checkpoint_every=2, errors=(1.5,), every=STEPS, patience=None,
             patient_until=0, micro_batch_size=2, mixed_precision="no", gradient_checkpointing=False, stop_at=None,
             minutes=None):  # fmt: skip
    validation = SETTINGS.validation.model_copy(update={"every": every, "patience": patience})
    settings = SETTINGS.model_copy(
        update={
            "batch_size": 2,
            "checkpoint_every": checkpoint_every,
            "checkpoint_every_minutes": minutes,
            "micro_batch_size": micro_batch_size,
            "mixed_precision": mixed_precision,
            "gradient_checkpointing": gradient_checkpointing,
            "validation": validation,
        }
    )
    network = motion_controlnet_like(
        foundation.image_controlnet, ["flow", "first_frame_latents"], 1.0, tiny.FACTOR, seed=3
    )
    torch.manual_seed(3)
    tiny.randomise(network)
    parameters = add_lora(network, "camera", rank=2, seed=0)
    guard = Errors(list(errors))
    guard.parameters = parameters
    return Job(
        "camera_lora",
        settings,
        STEPS,
        network,
        parameters,
        Items(fail_at, stop_at),
        guard,
        save=lambda: None,
        patient_until=patient_until,
    )


def weights(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"TINY_TRAINING": str(folder)}


def main() -> None:
    os.chdir(os.environ["TINY_TRAINING"])
    foundation = tiny.pipeline().foundation
    job = make_job(foundation)

    def save() -> None:
        Path("together").mkdir()
        save_file(weights(job.network), "together/weights.safetensors")

    job.save = save
    train(job, foundation, Path("together"), Listener())


if __name__ == "__main__":
    main()

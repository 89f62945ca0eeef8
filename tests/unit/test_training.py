"""The training loop: who learns, and that an interruption leaves no trace."""

from pathlib import Path

import pytest
import torch

from models.lora import add_lora
from models.networks import motion_controlnet_like
from stages.params import load_params
from stages.training import Job, adopt, train
from tests.unit import tiny

STEPS = 4


class Items(torch.utils.data.Dataset):
    """Random clips, each a function of its index; `fail_at` plays the machine that goes down."""

    def __init__(self, fail_at: int | None = None):
        self.clips: list = []
        self.frames, self.fail_at = tiny.FRAMES, fail_at

    def __getitem__(self, index):
        if index == self.fail_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(index)
        shape = (tiny.CHANNELS, tiny.FRAMES, 4, 6)
        return {
            "latents": torch.randn(shape, generator=generator),
            "noise": torch.randn(shape, generator=generator),
            "text": torch.randn(5, tiny.TEXT, generator=generator),
            "tracks": torch.rand(tiny.FRAMES, 2, 2, generator=generator) * 15,
            "visibility": torch.ones(tiny.FRAMES, 2, dtype=torch.bool),
            "u": torch.rand((), generator=generator),
        }


class NoTracker:
    def metrics(self, values, step=0):
        assert all(value == value for value in values.values())


SETTINGS = load_params(Path(__file__).parents[2] / "params.yaml").camera_lora


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_job(foundation, fail_at=None, checkpoint_every=2):
    settings = SETTINGS.model_copy(update={"batch_size": 2, "checkpoint_every": checkpoint_every})
    network = motion_controlnet_like(
        foundation.image_controlnet, ["flow", "first_frame_latents"], 1.0, tiny.FACTOR, seed=3
    )
    torch.manual_seed(3)
    tiny.randomise(network)
    parameters = add_lora(network, "camera", rank=2, seed=0)
    return Job("camera_lora", settings, STEPS, network, parameters, Items(fail_at))


def weights(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def test_only_the_trained_weights_change_by_a_bit(tmp_path):
    foundation = tiny.pipeline().foundation
    job = make_job(foundation)
    before, base = weights(job.network), [weights(network) for network in foundation.networks()]
    train(job, foundation, tmp_path / "out", NoTracker())
    changed = {key for key, value in job.network.state_dict().items() if not torch.equal(value, before[key])}
    lora = {key for key in before if ".camera." in key}
    assert changed <= lora
    assert {key for key in lora - changed if not key.startswith("conv_in.")} == set()  # conv_in sees zeros only
    for network, old in zip(foundation.networks(), base, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in network.state_dict().items())
    assert (tmp_path / "out" / "loss.csv").read_text().count("\n") == STEPS + 1


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    foundation = tiny.pipeline().foundation
    whole = make_job(foundation)
    train(whole, foundation, tmp_path / "whole", NoTracker())

    interrupted = make_job(foundation, fail_at=6)  # in step 4, after the checkpoint of step 2
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, foundation, tmp_path / "halves", NoTracker())
    assert list((tmp_path / "checkpoints" / "camera_lora").iterdir())
    resumed = make_job(foundation)
    train(resumed, foundation, tmp_path / "halves", NoTracker())

    expected = weights(whole.network)
    assert all(torch.equal(value, expected[key]) for key, value in resumed.network.state_dict().items())
    curves = [(tmp_path / name / "loss.csv").read_text() for name in ("whole", "halves")]
    assert curves[0] == curves[1]
    assert not (tmp_path / "checkpoints" / "camera_lora").exists()


def test_a_checkpoint_of_other_settings_is_not_taken(tmp_path):
    foundation = tiny.pipeline().foundation
    with pytest.raises(KeyboardInterrupt):
        train(make_job(foundation, fail_at=6), foundation, tmp_path / "out", NoTracker())
    other = make_job(foundation, checkpoint_every=3)
    train(other, foundation, tmp_path / "out", NoTracker())
    assert (tmp_path / "out" / "loss.csv").read_text().splitlines()[1].startswith("1,")


def test_weights_of_a_source_are_taken_without_what_else_lies_there(tmp_path):
    source, output = tmp_path / "official", tmp_path / "artifacts" / "camera_lora"
    for folder in (source, output):
        folder.mkdir(parents=True)
    (source / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    (source / "notes.txt").write_text("mine")
    (output / "loss.csv").write_text("step,loss")
    adopt(source, output)
    assert [path.name for path in output.iterdir()] == ["pytorch_lora_weights.safetensors"]
    with pytest.raises(FileNotFoundError, match="empty: no weights"):
        adopt(tmp_path / "empty", output)
    assert [path.name for path in output.iterdir()] == ["pytorch_lora_weights.safetensors"]

"""What training the motion ControlNet begins with."""

from pathlib import Path

import pytest
import torch

from models.networks.foundation import Foundation
from stages.motion_controlnet import first_weights
from stages.params import MotionControlNetParams, ParamsError, load_params

ROOT = Path(__file__).parents[2]
START = ROOT / "pretrained/pocket/motion_controlnet"


@pytest.fixture(scope="module")
def foundation() -> Foundation:
    return Foundation.load(ROOT / "pretrained/pocket")


def settings(**changes) -> MotionControlNetParams:
    return load_params(ROOT / "profiles/pocket.yaml").motion_controlnet.model_copy(update=changes)


def test_a_fresh_one_changes_nothing_yet(foundation):
    fresh = first_weights(settings(start=None), foundation)
    outputs = [*fresh.controlnet_down_blocks.parameters(), *fresh.controlnet_mid_block.parameters()]
    assert all(not parameter.any() for parameter in outputs)


def test_training_begins_with_the_weights_that_start_names(foundation):
    started, again = (first_weights(settings(start=str(START)), foundation) for _ in range(2))
    assert all(map(torch.equal, started.state_dict().values(), again.state_dict().values()))
    assert any(parameter.any() for parameter in started.controlnet_mid_block.parameters())


@pytest.mark.parametrize(("key", "value"), [("flow_scale", 1.0), ("condition", ["flow"])])
def test_a_start_that_was_made_otherwise_is_refused(foundation, key, value):
    with pytest.raises(ParamsError, match=rf"motion_controlnet\.{key} is .* set motion_controlnet.start to null"):
        first_weights(settings(start=str(START), **{key: value}), foundation)


def test_a_start_that_is_not_there_is_named_and_not_looked_for_on_the_hub(foundation, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", lambda *given, **more: pytest.fail("asked"))
    for folder in (tmp_path / "nothing", "no/folder"):
        with pytest.raises(ParamsError, match=rf"motion_controlnet.start: {folder}: no motion ControlNet"):
            first_weights(settings(start=str(folder)), foundation)

"""LoRA sets (Eq. 2, Eq. 12) and the orthogonal loss (Eq. 4)."""

import json
import struct

import pytest
import torch
from safetensors import safe_open

from models.denoising.denoiser import motion_residuals
from models.lora.headers import order_header
from models.lora.orthogonal_loss import layer_loss, orthogonal_loss
from models.lora.sets import add_lora, fold_lora, load_lora, lora_layers, save_lora, unfolded
from models.networks.networks import motion_controlnet_like
from tests.unit import tiny


@pytest.fixture
def network():
    image_controlnet = tiny.pipeline().image_controlnet
    network = motion_controlnet_like(image_controlnet, ["flow"], 1.0, tiny.FACTOR, seed=0)
    torch.manual_seed(3)
    tiny.randomise(network)
    return network


def residuals(network):
    condition = torch.randn(1, 2 * tiny.FACTOR**2, tiny.FRAMES, 4, 6, generator=torch.Generator().manual_seed(1))
    text = torch.zeros(tiny.FRAMES, 3, tiny.TEXT)
    return motion_residuals(network, torch.tensor([500]), text, condition).mid


def test_a_new_lora_changes_nothing_because_b_is_zero(network):
    before = residuals(network)
    add_lora(network, "camera", rank=2, seed=0)
    assert torch.equal(residuals(network), before)


def test_lora_sits_on_linear_and_convolution_layers(network):
    add_lora(network, "camera", rank=2, seed=0)
    dimensions = {layer.lora_A["camera"].weight.dim() for layer in lora_layers(network)}
    assert dimensions == {2, 4}


def test_only_the_named_lora_has_gradient_and_all_of_them_act(network):
    add_lora(network, "camera", rank=2, seed=0)
    camera_alone = residuals(network)
    for key, parameter in network.named_parameters():
        if ".camera." in key and "lora_B" in key:
            torch.nn.init.normal_(parameter.data, std=0.2)
    acting = residuals(network)
    trained = add_lora(network, "object", rank=3, seed=1)
    assert not torch.equal(acting, camera_alone)
    torch.testing.assert_close(residuals(network), acting)  # the camera LoRA still acts beside the new one
    wanted = {key for key, _ in network.named_parameters() if ".object." in key}
    assert {key for key, p in network.named_parameters() if p.requires_grad} == wanted
    assert len(trained) == len(wanted)


def test_a_folded_lora_acts_as_before_and_leaves_the_other_its_gradients(network):
    add_lora(network, "camera", rank=2, seed=0)
    trained = add_lora(network, "object", rank=3, seed=1)
    tiny.randomise(network)  # freezes all
    for parameter in trained:
        parameter.requires_grad_(True)
    camera = [layer.lora_A["camera"].weight.clone() for layer in lora_layers(network)]

    def outcome():
        made = residuals(network)
        return made, torch.autograd.grad(made.square().mean(), trained, allow_unused=True)

    (beside, gradients), loss = outcome(), orthogonal_loss(network, "orthogonal")
    fold_lora(network, "camera")
    folded, again = outcome()
    torch.testing.assert_close(folded, beside, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, gradients, rtol=1e-3, atol=1e-6)
    assert network.active_adapters() == ["object"]
    assert [p for p in network.parameters() if p.requires_grad] and all(p.requires_grad for p in trained)
    assert {id(p) for p in network.parameters() if p.requires_grad} == {id(p) for p in trained}
    assert torch.equal(orthogonal_loss(network, "orthogonal"), loss)
    assert all(map(torch.equal, camera, [layer.lora_A["camera"].weight for layer in lora_layers(network)]))


def test_what_is_saved_of_the_other_does_not_hold_the_folded_one(network, tmp_path):
    add_lora(network, "camera", rank=2, seed=0)
    add_lora(network, "object", rank=3, seed=1)
    fold_lora(network, "camera")
    save_lora(network, "object", tmp_path)
    fresh = motion_controlnet_like(tiny.pipeline().image_controlnet, ["flow"], 1.0, tiny.FACTOR, seed=0)
    load_lora(fresh, "object", tmp_path)
    pairs = zip(lora_layers(fresh), lora_layers(network), strict=True)
    assert all(torch.equal(a.lora_A["object"].weight, b.lora_A["object"].weight) for a, b in pairs)
    assert not [key for key in fresh.state_dict() if ".camera." in key]


def test_a_lora_is_measured_on_theta_0_where_its_training_has_another_folded_in(network):
    theta_0 = residuals(network)
    add_lora(network, "camera", rank=2, seed=0)
    trained = add_lora(network, "object", rank=3, seed=1)
    for layer in lora_layers(network):
        for name in ("camera", "object"):
            torch.nn.init.normal_(layer.lora_B[name].weight, std=0.2)
    network.set_adapters(["object"])
    alone = residuals(network)
    network.set_adapters(["camera", "object"])
    before = fold_lora(network, "camera")
    state = {key: value.clone() for key, value in network.state_dict().items()}
    mixed = residuals(network)
    with unfolded(network, "object", before) as switch:
        torch.testing.assert_close(residuals(network), alone)
        switch(None)
        torch.testing.assert_close(residuals(network), theta_0)
        switch("object")
        torch.testing.assert_close(residuals(network), alone)
    assert torch.equal(residuals(network), mixed) and not torch.allclose(mixed, alone)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert {id(p) for p in network.parameters() if p.requires_grad} == {id(p) for p in trained}


def test_the_seed_decides_the_start(network):
    starts = []
    for seed in (0, 0, 1):
        fresh = motion_controlnet_like(tiny.pipeline().image_controlnet, ["flow"], 1.0, tiny.FACTOR, seed=0)
        starts.append(add_lora(fresh, "camera", rank=2, seed=seed)[0].detach().clone())
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_orthonormal_rows_have_no_loss_in_the_orthogonal_form():
    rows = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    assert layer_loss(rows[:3], rows[3:6], "orthogonal") == pytest.approx(0, abs=1e-10)
    assert layer_loss(rows[:3], rows[3:6], "identity") == pytest.approx(1)


def test_identity_form_is_zero_for_aligned_rows_whatever_their_length():
    rows = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0][:3]
    assert layer_loss(5 * rows, rows, "identity") == pytest.approx(0, abs=1e-10)
    assert layer_loss(5 * rows, rows, "orthogonal") == pytest.approx(1)


def test_convolution_weights_are_flattened():
    weight = torch.randn(2, 3, 3, 3)
    assert torch.equal(
        layer_loss(weight, weight, "orthogonal"), layer_loss(weight.flatten(1), weight.flatten(1), "orthogonal")
    )


def test_orthogonal_loss_reaches_the_object_lora_only(network):
    add_lora(network, "camera", rank=2, seed=0)
    add_lora(network, "object", rank=2, seed=1)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    orthogonal_loss(network, "orthogonal").backward()
    with_gradient = {key for key, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert with_gradient and all(".object." in key and "lora_A" in key for key in with_gradient)


def test_a_saved_lora_has_the_same_bytes_whatever_the_order_of_sets_and_tables(network, tmp_path):
    add_lora(network, "camera", rank=2, seed=0)
    save_lora(network, "camera", tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    settings = json.loads(header["__metadata__"]["lora_adapter_metadata"])
    assert len(settings["target_modules"]) > 2
    settings["target_modules"].reverse()
    header["__metadata__"] = {"lora_adapter_metadata": json.dumps(settings), "format": "pt"}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    order_header(file)

    assert file.read_bytes() == data
    with safe_open(file, "pt") as read:
        assert read.metadata()["format"] == "pt"


def test_a_second_lora_is_added_and_read_without_a_warning(network, tmp_path, recwarn):
    add_lora(network, "camera", rank=2, seed=0)
    add_lora(network, "object", rank=2, seed=0)
    save_lora(network, "camera", tmp_path)
    other = motion_controlnet_like(tiny.pipeline().image_controlnet, ["flow"], 1.0, tiny.FACTOR, seed=0)
    add_lora(other, "object", rank=2, seed=0)
    load_lora(other, "camera", tmp_path)
    assert not [warning for warning in recwarn if "peft_config" in str(warning.message)]

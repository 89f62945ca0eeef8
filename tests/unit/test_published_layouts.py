"""The published files load: every config as published, every kind of weight file, original single files, the hub."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from models.estimators import EstimatorUnavailable, load_estimator
from models.networks.foundation import Foundation
from models.networks.networks import ImageControlNet, motion_controlnet_like
from models.origins.addresses import NotPublished, local_place, parse_hub_id
from models.origins.hub import assemble_foundation, load_network
from models.origins.weights import CheckpointError, find_weights, read_checkpoint
from tests.unit import published
from tests.unit.original_layout import original_text_encoder, original_unet, original_vae

CLASSES = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "motion_adapter": MotionAdapter,
    "sparsectrl": ImageControlNet,
}


def same_weights(loaded, expected) -> bool:
    state, wanted = loaded.state_dict(), expected.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("variant", published.VARIANTS)
@pytest.mark.parametrize("part", CLASSES)
def test_each_part_loads_from_each_kind_of_file(part, variant, tmp_path):
    expected = published.write(tmp_path, part, variant)
    loaded = load_network(CLASSES[part], tmp_path)
    assert same_weights(loaded, expected)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert not any(value.requires_grad for value in loaded.parameters())


def test_the_published_configs_make_one_foundation_that_trains(tmp_path):
    published.write_base(tmp_path / "base")
    published.write(tmp_path / "adapter", "motion_adapter")
    sparsectrl = published.write(tmp_path / "sparsectrl", "sparsectrl")
    assemble_foundation(*(str(tmp_path / name) for name in ("base", "adapter", "sparsectrl"))).save(tmp_path / "out")
    foundation = Foundation.load(tmp_path / "out")
    assert foundation.vae.config.scaling_factor == 0.18215
    assert foundation.encode_text(["a red circle"]).shape == (1, 77, 64)
    network = motion_controlnet_like(foundation.image_controlnet, ["flow"], 1.0, foundation.codec_factor, 0)
    ours = network.state_dict()
    encoder = {k: v for k, v in sparsectrl.state_dict().items() if not k.startswith("controlnet_")}
    assert all(torch.equal(ours[key], value) for key, value in encoder.items())


def test_a_motion_controlnet_is_made_beside_a_network_that_kept_unknown_keys():
    keys = {key: value for key, value in published.config("sparsectrl").items() if not key.startswith("_")}
    image_controlnet = ImageControlNet.from_config(keys)
    image_controlnet.register_to_config(concate_conditioning_mask=True, addition_embed_type=None)
    assert "addition_embed_type" in image_controlnet.config
    assert motion_controlnet_like(image_controlnet, ["flow"], 1.0, 8, 0).config.conditioning_channels == 128


def test_loading_the_published_sparsectrl_warns_of_nothing(tmp_path, capfd):
    published.write(tmp_path, "sparsectrl")
    load_network(ImageControlNet, tmp_path)
    assert "not expected" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"], "diffusion_pytorch_model.safetensors"),
        (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "model.fp16.safetensors"], "model.fp16.safetensors"),
        (["diffusion_pytorch_model.non_ema.safetensors"], "diffusion_pytorch_model.non_ema.safetensors"),
        (["pytorch_model.fp16.bin"], "pytorch_model.fp16.bin"),
        (["flax_model.msgpack", "config.json"], None),
    ],
)
def test_full_precision_and_safetensors_are_preferred(names, chosen):
    assert find_weights(names) == ([chosen] if chosen else [])


def test_a_base_without_a_weight_is_not_filled_with_random_numbers(tmp_path):
    expected = published.write(tmp_path, "unet")
    state = expected.state_dict()
    del state["conv_in.weight"]
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="UNet2DConditionModel: missing: conv_in.weight"):
        load_network(UNet2DConditionModel, tmp_path)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not a JSON file"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(), "no weights; expected .* config"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"x"), "not a MotionAdapter"),
    ],
)
def test_what_is_broken_is_named(tmp_path, break_it, message):
    published.write(tmp_path, "motion_adapter")
    break_it(tmp_path)
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*{message}"):
        load_network(MotionAdapter, tmp_path)


def test_parts_of_two_architectures_are_refused(tmp_path):
    published.write_base(tmp_path / "base")
    published.write(tmp_path / "adapter", "motion_adapter")
    published.write(tmp_path / "sparsectrl", "sparsectrl")
    torch.manual_seed(0)
    MotionAdapter(block_out_channels=(32, 64), use_motion_mid_block=False).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"foundation.motion_adapter: .*other: block_out_channels \[32, 64\]"):
        assemble_foundation(*(str(tmp_path / name) for name in ("base", "other", "sparsectrl")))


NOT_FITTING = [  # the base for inpainting, a base of SD 2.1, PIA's adapter: they load one by one, and fail together
    ("adapter", "motion_adapter", {"conv_in_channels": 9}, "foundation.motion_adapter: .*adapter: conv_in_channels 9"),
    ("base/unet", "unet", {"in_channels": 9}, "foundation.base: .*base: in_channels 9, expected 4.*inpainting"),
    ("base/unet", "unet", {"cross_attention_dim": 128}, "image_controlnet: .* cross_attention_dim 64, .* is 128"),
]


def test_published_parts_that_do_not_fit_are_refused(tmp_path):
    published.write_base(tmp_path / "base")
    published.write(tmp_path / "adapter", "motion_adapter")
    published.write(tmp_path / "sparsectrl", "sparsectrl")
    for folder, part, changed, message in NOT_FITTING:
        published.write(tmp_path / folder, part, **changed)
        with pytest.raises(CheckpointError, match=message):
            assemble_foundation(*(str(tmp_path / name) for name in ("base", "adapter", "sparsectrl")))
        published.write(tmp_path / folder, part)


WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "global_step": 3, "epoch": 1},
    "bare with a step": lambda state: state | {"global_step": 3, "animatediff_config": {"unet": {"layers": 2}}},
    "controlnet": lambda state: {"controlnet": state, "animatediff_config": "text"},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "all of it": lambda state: {"state_dict": {f"module.{key}": v for key, v in state.items()}, "optimizer": {"s": 1}},
}


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("part", ["motion_adapter", "sparsectrl"])
@pytest.mark.parametrize("codes", [True, False])
def test_animatediff_s_own_files_load(part, wrap, codes, tmp_path):
    expected = published.network(part)
    state = published.original_motion_keys(expected.state_dict(), part == "motion_adapter")
    if not codes:
        state = {key: value for key, value in state.items() if not key.endswith("pos_encoder.pe")}
    half = {key: value.half() if not key.endswith(".pe") else value for key, value in state.items()}
    torch.save(WRAPPED[wrap](half), tmp_path / "v3_sd15.ckpt")
    loaded = load_network(CLASSES[part], tmp_path / "v3_sd15.ckpt")
    wanted = {key: v if key.endswith(".pe") else v.half().float() for key, v in expected.state_dict().items()}
    state = loaded.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("version", published.MOTION_ADAPTERS)
def test_each_of_animatediffs_adapters_joins_the_base(version, tmp_path):
    changed = published.MOTION_ADAPTERS[version]
    published.write_base(tmp_path / "base")
    adapter = published.write(tmp_path / "adapter", "motion_adapter", **changed)
    published.write(tmp_path / "sparsectrl", "sparsectrl")
    foundation = assemble_foundation(*(str(tmp_path / name) for name in ("base", "adapter", "sparsectrl")))
    ours = foundation.unet.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in adapter.state_dict().items())
    assert any(key.startswith("mid_block.motion_modules") for key in ours) == (version == "v1-5-2")


@pytest.mark.parametrize("original", [True, False])
def test_a_distilled_adapter_in_one_file_is_a_motion_adapter(original, tmp_path):
    """AnimateDiff-Lightning has a mid block, and files with diffusers' keys and with AnimateDiff's own."""
    expected = published.network("motion_adapter", use_motion_mid_block=True)
    state = expected.state_dict()
    if original:
        state = published.original_motion_keys(state, True)
    path = tmp_path / "animatediff_lightning_4step.safetensors"
    save_file({key: value.clone() for key, value in state.items()}, path)
    assert same_weights(load_network(MotionAdapter, path), expected)


def test_a_community_base_in_diffusers_layout_is_the_base(tmp_path):
    published.write_base(tmp_path / "base", "fp16.safetensors")
    for part, fact in (
        ("unet", published.COMMUNITY_UNET),
        ("vae", published.COMMUNITY_VAE),
        ("text_encoder", published.COMMUNITY_TEXT_ENCODER),
    ):
        (tmp_path / "base" / part / "config.json").write_text(json.dumps(fact | published.REDUCED[part]))
    published.write(tmp_path / "adapter", "motion_adapter")
    published.write(tmp_path / "sparsectrl", "sparsectrl")
    foundation = assemble_foundation(*(str(tmp_path / name) for name in ("base", "adapter", "sparsectrl")))
    ours = foundation.unet.state_dict()
    assert all(torch.equal(ours[key], v.half().float()) for key, v in published.network("unet").state_dict().items())
    assert {value.dtype for value in foundation.text_encoder.parameters()} == {torch.float32}


def test_the_scribble_folder_is_not_taken_for_the_rgb_one(tmp_path):
    changed = {key: published.SCRIBBLE[key] for key in ("conditioning_channels", "use_simplified_condition_embedding")}
    published.write(tmp_path, "sparsectrl", **changed)
    with pytest.raises(CheckpointError, match=r"config.json: use_simplified_condition_embedding is false; .* RGB"):
        load_network(ImageControlNet, tmp_path)


def test_the_scribble_file_is_not_taken_for_the_rgb_one(tmp_path):
    state = published.original_motion_keys(published.network("sparsectrl").state_dict(), False)
    state["controlnet_cond_embedding.conv_in.weight"] = state.pop("controlnet_cond_embedding.weight")
    torch.save(state, tmp_path / "v3_sd15_sparsectrl_scribble.ckpt")
    with pytest.raises(CheckpointError, match="scribble.ckpt: no controlnet_cond_embedding.weight; .* RGB"):
        load_network(ImageControlNet, tmp_path / "v3_sd15_sparsectrl_scribble.ckpt")


def test_a_file_of_another_network_says_what_was_expected(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="other.ckpt: no down_blocks.0.motion_modules"):
        load_network(MotionAdapter, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="other.ckpt: no UNet .*, VAE .*, text encoder"):
        assemble_foundation(str(tmp_path / "other.ckpt"), "a", "b")


def test_older_torch_files_are_read(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth")["weight"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("guoyww/animatediff-sparsectrl-rgb", ("guoyww/animatediff-sparsectrl-rgb", None)),
        ("a/b@451f4fe16113bff5a5d2269ed5ad43b0592e9a14", ("a/b", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")),
        ("a/b@refs/pr/1", ("a/b", "refs/pr/1")),
        ("weights/v3/mm.ckpt", None),
        ("mm.ckpt", None),
    ],
)
def test_a_hub_id_may_have_a_revision(address, parsed):
    assert parse_hub_id(address) == parsed


def test_what_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotPublished, match="foundation.base: .*nowhere/sd15/x: no such file or folder, and no hub id"):
        local_place(tmp_path / "nowhere/sd15/x", "unet", "foundation.base")
    with pytest.raises(NotPublished, match="foundation.base: nobody/nothing@main: .* the hub cannot be had"):
        local_place("nobody/nothing@main", "unet", "foundation.base")
    (tmp_path / "base").mkdir()
    with pytest.raises(NotPublished, match="base: no folder unet in it"):
        local_place(tmp_path / "base", "unet")


@pytest.mark.parametrize(
    ("fact", "size"),
    [
        (published.UNET, 743),
        (published.VAE, 547),
        (published.TEXT_ENCODER, 617),
        (published.TOKENIZER, 806),
        (published.SCHEDULER, 308),
        (published.MOTION_ADAPTER, 349),
        (published.SPARSECTRL, 1477),
    ],
)
def test_the_facts_have_every_key(fact, size):
    """The sizes in bytes that the hub shows for the files (1.48 kB for the last): a key more or less would differ."""
    assert len(json.dumps(fact, indent=2)) + 1 == size


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_community_base_in_one_file_is_the_base(tmp_path, suffix):
    networks = {part: published.network(part) for part in ("unet", "vae", "text_encoder")}
    state = (
        original_unet(networks["unet"].state_dict())
        | original_vae(networks["vae"].state_dict())
        | original_text_encoder(networks["text_encoder"].state_dict())
    )
    state = {key: value.contiguous() for key, value in state.items()}
    path = tmp_path / f"community.{suffix}"
    if suffix == "ckpt":
        torch.save({"state_dict": state, "global_step": 840000}, path)
    else:
        save_file(state, path)
    published.write_tokenizer(tmp_path / "tokenizer")
    published.write(tmp_path / "adapter", "motion_adapter")
    published.write(tmp_path / "sparsectrl", "sparsectrl")
    foundation = assemble_foundation(str(path), str(tmp_path / "adapter"), str(tmp_path / "sparsectrl"))
    assert same_weights(foundation.vae, networks["vae"])
    assert same_weights(foundation.text_encoder, networks["text_encoder"])
    ours = foundation.unet.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in networks["unet"].state_dict().items())
    assert foundation.unet.config.num_attention_heads == 8
    images, text = torch.rand(1, 3, 64, 64), foundation.encode_text(["a red circle"])
    assert foundation.encode_images(images).shape == (1, 4, 8, 8)
    reference = CLIPTextModel(CLIPTextConfig(**published.config("text_encoder"))).eval()
    reference.load_state_dict(networks["text_encoder"].state_dict())
    ids = foundation.tokenizer(["a red circle"], padding="max_length", return_tensors="pt").input_ids
    torch.testing.assert_close(text, reference(ids).last_hidden_state)


def test_blip2_captions_from_the_published_layout_and_from_the_one_before_image_tokens(tmp_path):
    published.write_blip2(tmp_path / "now")
    published.write_blip2(tmp_path / "before", before_image_tokens=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    captions = [load_estimator("captions", "blip2", model=str(tmp_path / name))(images) for name in ("now", "before")]
    assert captions[0] == captions[1] and len(captions[0]) == 2 and all(captions[0])


def test_blip2_with_t5_describes_pictures(tmp_path):
    published.write_blip2_with_t5(tmp_path / "t5")
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    captions = load_estimator("captions", "blip2", model=str(tmp_path / "t5"))(images)
    less = shutil.copytree(tmp_path / "t5", tmp_path / "less")
    weights = load_file(less / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "query_tokens"}, less / "model.safetensors")
    with pytest.raises(EstimatorUnavailable, match="its weights lack query_tokens"):
        load_estimator("captions", "blip2", model=str(less))
    assert len(captions) == 2 and all(captions)


def test_another_model_of_the_blip_family_is_not_filled_with_random_numbers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(published.BLIP2 | {"model_type": "instructblip"}))
    with pytest.raises(EstimatorUnavailable, match="model_type instructblip, not blip-2"):
        load_estimator("captions", "blip2", model=str(tmp_path))


def test_a_folder_that_is_no_blip2_is_named(tmp_path):
    published.write(tmp_path, "unet")
    with pytest.raises(EstimatorUnavailable, match=f"blip2: {tmp_path} cannot be loaded .* captions.model"):
        load_estimator("captions", "blip2", model=str(tmp_path))


def test_qwen_vl_captions_each_picture_of_a_batch_as_it_does_alone(tmp_path):
    published.write_qwen2_vl(tmp_path / "qwen")
    captioner = load_estimator("captions", "qwen_vl", model=str(tmp_path / "qwen"))
    images = np.random.default_rng(0).integers(0, 256, (2, 56, 84, 3), np.uint8)
    images[1] = 0
    captions = captioner(images)
    assert all(captions) and captions[0] != captions[1]
    assert captions == [captioner(images[:1])[0], captioner(images[1:])[0]]


def test_what_is_no_qwen_vl_or_lacks_weights_is_named(tmp_path):
    published.write_qwen2_vl(tmp_path / "less")
    weights = load_file(tmp_path / "less" / "model.safetensors")
    lost = next(key for key in weights if "mlp" in key)
    save_file(
        {key: value for key, value in weights.items() if key != lost},
        tmp_path / "less" / "model.safetensors",
        {"format": "pt"},
    )
    published.write(tmp_path / "unet", "unet")
    for folder, reason in (("less", "lack"), ("unet", "model_type"), ("absent", "no such file or folder")):
        with pytest.raises(
            EstimatorUnavailable, match=f"qwen_vl: .*{folder} cannot be loaded .*{reason}.*captions.model"
        ):
            load_estimator("captions", "qwen_vl", model=str(tmp_path / folder))

"""The paper's base out of its published parts, with tiny networks of the real classes in the hub's layout."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from diffusers.models.controlnets.controlnet_sparsectrl import SparseControlNetModel
from torch import nn

from models.denoising.strokes import Strokes
from models.networks.foundation import Foundation
from models.networks.networks import ImageControlNet, MotionUNet, motion_controlnet_like
from models.origins.addresses import NotPublished
from models.origins.hub import assemble_foundation
from models.origins.official import SD15, empty_networks
from models.origins.pocket import pocket_text_encoder, pocket_tokenizer
from models.sampling.pipeline import ImageConductorPipeline
from models.sampling.settings import Settings
from stages import foundation as stage
from stages.data.items import content_hash
from stages.data.paths import FOUNDATION
from stages.foundation import copy_foundation
from stages.params import ParamsError
from tests.unit import tiny

CHANNELS = (32, 64)
BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders `base`, `motion-adapter` and `sparsectrl`, every weight random, as the hub's files unpack."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    tokenizer = pocket_tokenizer()
    unet = UNet2DConditionModel(
        block_out_channels=CHANNELS, layers_per_block=1, cross_attention_dim=tiny.TEXT, attention_head_dim=8, **BLOCKS
    )
    adapter = MotionAdapter(
        block_out_channels=CHANNELS, motion_layers_per_block=1, motion_num_attention_heads=8, use_motion_mid_block=False
    )
    sparsectrl = SparseControlNetModel(
        block_out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        layers_per_block=1,
        cross_attention_dim=tiny.TEXT,
        num_attention_heads=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
    )
    for network in (unet, adapter, sparsectrl, vae):
        tiny.randomise(network)
    unet.save_pretrained(folder / "base" / "unet")
    vae.save_pretrained(folder / "base" / "vae")
    pocket_text_encoder(tokenizer, tiny.TEXT).save_pretrained(folder / "base" / "text_encoder")
    tokenizer.save_pretrained(folder / "base" / "tokenizer")
    adapter.save_pretrained(folder / "motion-adapter")
    sparsectrl.save_pretrained(folder / "sparsectrl")
    return folder


@pytest.fixture(scope="module")
def assembled(published) -> Foundation:
    return assemble_foundation(*(str(published / part) for part in ("base", "motion-adapter", "sparsectrl")))


def test_every_published_weight_is_where_it_belongs(published, assembled):
    state = assembled.unet.state_dict()
    assert isinstance(assembled.unet, MotionUNet) and isinstance(assembled.image_controlnet, ImageControlNet)
    image = UNet2DConditionModel.from_pretrained(published / "base" / "unet").state_dict()
    motion = MotionAdapter.from_pretrained(published / "motion-adapter").state_dict()
    assert {**image, **motion}.keys() == state.keys()
    assert all(torch.equal(state[key], value) for key, value in {**image, **motion}.items())
    sparse = SparseControlNetModel.from_pretrained(published / "sparsectrl").state_dict()
    ours = assembled.image_controlnet.state_dict()
    assert sparse.keys() == ours.keys() and all(torch.equal(ours[key], value) for key, value in sparse.items())


def test_motion_is_normalised_frame_by_frame(assembled):
    for network in (assembled.unet, assembled.image_controlnet):
        norms = [module.norm for name, module in network.named_modules() if name.endswith("motion_modules.0")]
        assert norms and all(isinstance(norm, nn.GroupNorm) and norm.num_groups == 32 for norm in norms)


def test_the_assembled_base_saves_loads_and_samples(assembled, tmp_path):
    assembled.save(tmp_path)
    loaded = Foundation.load(tmp_path)
    assert not {path.suffix for path in tmp_path.rglob("*")} & {".bin", ".ckpt", ".pt"}
    network = motion_controlnet_like(loaded.image_controlnet, ["flow"], 1.0, loaded.codec_factor, 0)
    pipe = ImageConductorPipeline.assemble(loaded, network, Settings(32, 32, 2, num_inference_steps=1))
    pipe.set_progress_bar_config(disable=True)
    one = {"object": Strokes.visible(torch.zeros(1, 2, 0, 2))}
    first, text = torch.randn(1, 4, 8, 8), loaded.encode_text(["a circle"])
    latents = torch.randn(1, 4, 2, 8, 8)
    made = pipe.sample_latents(first, text, one, "controlnet", latents=latents, guidance_scale=1)
    assert made.isfinite().all()


def test_the_stage_records_the_hash_of_each_weight_file(published, tmp_path, monkeypatch):
    class Settings:
        source = None
        base, motion_adapter, image_controlnet = (
            str(published / part) for part in ("base", "motion-adapter", "sparsectrl")
        )

    monkeypatch.chdir(tmp_path)
    stage.run(type("P", (), {"foundation": Settings}))
    recorded = json.loads((FOUNDATION / "weights.json").read_text())
    assert set(recorded) == {
        f"{part}/{name}"
        for part, name in (
            ("unet", "diffusion_pytorch_model.safetensors"),
            ("image_controlnet", "diffusion_pytorch_model.safetensors"),
            ("vae", "diffusion_pytorch_model.safetensors"),
            ("text_encoder", "model.safetensors"),
        )
    }
    assert all(content_hash(FOUNDATION / path) == digest for path, digest in recorded.items())


def test_a_part_that_is_not_there_is_named(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotPublished, match="foundation.base: .*nowhere"):
        assemble_foundation(str(tmp_path / "nowhere"), str(published / "motion-adapter"), str(published / "sparsectrl"))


def test_the_full_size_out_of_parts_is_the_authors_network():
    heads = SD15["attention_head_dim"]
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=SD15["cross_attention_dim"], attention_head_dim=heads)
        adapter = MotionAdapter(use_motion_mid_block=False)
        sparsectrl = SparseControlNetModel(num_attention_heads=heads)
    official = empty_networks(SD15, {})

    def shapes(*networks):
        return {key: value.shape for network in networks for key, value in network.state_dict().items()}

    assert shapes(unet, adapter) == shapes(official.unet)
    assert shapes(sparsectrl) == shapes(official.image_controlnet)
    assert sum(value.numel() for value in unet.parameters()) == 859_520_964


@pytest.mark.parametrize("folder", ["nothing", "no/folder"])
def test_a_foundation_that_is_no_folder_is_named_and_not_looked_for_on_the_hub(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", lambda *given, **more: pytest.fail("asked"))
    with pytest.raises(ParamsError, match=rf"^params.yaml: foundation.source: {folder}: no unet, .*; expected unet, "):
        copy_foundation(Path(folder), tmp_path)

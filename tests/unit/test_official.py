"""The authors' checkpoint files as this project's model: checks, file formats, and what comes out."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models.origins.addresses import NotPublished
from models.origins.official import SD15, empty_networks, import_official, read_config
from models.origins.pocket import pocket_text_encoder, pocket_tokenizer
from models.origins.weights import CheckpointError, read_checkpoint
from models.sampling.pipeline import ImageConductorPipeline
from models.serving.cli import main
from stages import register
from stages.foundation import copy_foundation
from stages.params import load_params
from stages.train.launch import adopt
from tests.unit import golden

pytestmark = pytest.mark.skipif(not golden.FOLDER.is_dir(), reason=f"no golden tensors in {golden.FOLDER}")

NAMES = ("unet", "image_controlnet", "flow_controlnet")


def files(folder=golden.FOLDER, **replaced) -> dict:
    return (
        {name: folder / f"{name}.safetensors" for name in NAMES} | {"config": golden.FOLDER / "config.json"} | replaced
    )


def command(output, **paths) -> list[str]:
    return ["import-official", f"--output={output}", *(f"--{k.replace('_', '-')}={v}" for k, v in paths.items())]


def sample(pipe: ImageConductorPipeline, mode: str) -> torch.Tensor:
    inputs, config = golden.tensors("inputs"), golden.config()
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        image_latents=inputs["image_latents"],
        prompt_embeds=inputs["text_embeddings"][1:],
        negative_prompt_embeds=inputs["text_embeddings"][:1],
        flow_maps=inputs["controlnet_flows"],
        mode=mode,
        num_inference_steps=config["steps"],
        guidance_scale=config["guidance_scale"],
        trajectory_guidance_scale=None,
        latents=inputs["latents"],
        output_type="latent",
    ).frames


@pytest.mark.parametrize("mode", ["object", "camera"])
def test_the_imported_model_samples_what_the_authors_code_samples(tmp_path, mode):
    main(command(tmp_path / "model", **files()))
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"unet", "image_controlnet", "motion_controlnet", "camera_lora", "object_lora"} <= written
    assert not {path.suffix for path in (tmp_path / "model").rglob("*")} & {".ckpt", ".bin", ".pt"}
    pipe = ImageConductorPipeline.from_pretrained(tmp_path / "model")
    assert (pipe.settings.width, pipe.settings.height, pipe.settings.frames) == (192, 128, 6)
    expected = golden.tensors("sampling")[f"{mode}.latents"]
    assert (sample(pipe, mode) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture
def model(tmp_path):
    """The imported model with a VAE, a text encoder and a tokenizer."""
    tokenizer = pocket_tokenizer()
    golden.vae().save_pretrained(tmp_path / "base" / "vae")
    pocket_text_encoder(tokenizer, 32).save_pretrained(tmp_path / "base" / "text_encoder")
    tokenizer.save_pretrained(tmp_path / "base" / "tokenizer")
    main(command(tmp_path / "model", **files(), base=tmp_path / "base"))
    return tmp_path / "model"


def test_with_a_base_it_makes_videos_from_pictures(model, tmp_path):
    Image.new("RGB", (192, 128)).save(tmp_path / "i.png")
    (tmp_path / "t.json").write_text(json.dumps({"width": 192, "height": 128, "trajectories": [[[50, 50], [90, 60]]]}))
    options = {"image": "i.png", "trajectories": "t.json", "model": "model", "output": "v.gif"}
    main(["generate", "--steps=1", *(f"--{key}={tmp_path / value}" for key, value in options.items())])
    assert Image.open(tmp_path / "v.gif").n_frames == 6


def test_the_stages_pass_it_on_to_registration_unchanged(model, tmp_path, monkeypatch):
    copy_foundation(model, tmp_path / "foundation")
    trained = [tmp_path / "artifacts" / name for name in ("motion_controlnet", "camera_lora", "object_lora")]
    for folder in trained:
        adopt(folder.name, model / folder.name, folder)
    monkeypatch.setattr(register, "FOUNDATION", tmp_path / "foundation")
    monkeypatch.setattr(register, "TRAINED", tuple(trained))
    register.assemble(tmp_path / "registered", load_params(Path(__file__).parents[2] / "profiles" / "paper.yaml"))
    expected = golden.tensors("sampling")["object.latents"]
    assembled = ImageConductorPipeline.from_pretrained(tmp_path / "registered")
    assert (sample(assembled, "object") - expected).abs().max() <= 1e-4 * expected.abs().max()


WRAPPED = {
    "bare": lambda state: state,
    "with a step": lambda state: state | {"global_step": 3},
    "state_dict": lambda state: {"global_step": 3, "state_dict": state},
    "controlnet": lambda state: {"controlnet": state, "animatediff_config": {"unet": 2}},
    "module": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_ckpt_is_read_in_each_way_that_the_authors_loader_takes(tmp_path, wrap):
    state = load_file(golden.FOLDER / "image_controlnet.safetensors")
    torch.save(WRAPPED[wrap](state), tmp_path / "c.ckpt")
    read = read_checkpoint(tmp_path / "c.ckpt")
    assert read.keys() == state.keys() and all(torch.equal(read[key], value) for key, value in state.items())


def test_files_without_position_codes_are_the_same_model(tmp_path):
    paths = files()
    for name in NAMES:
        state = {k: v.half() for k, v in load_file(paths[name]).items() if not k.endswith("pos_encoder.pe")}
        torch.save({"controlnet": state}, tmp_path / f"{name}.ckpt")
    halves = {name: tmp_path / f"{name}.ckpt" for name in NAMES}
    given = import_official(*(paths[name] for name in NAMES), config=paths["config"])
    computed = import_official(*(halves[name] for name in NAMES), config=paths["config"])
    codes = {key: v for key, v in given.unet.state_dict().items() if key.endswith("pos_embed.pe")}
    apart = [(computed.unet.state_dict()[key] - value).abs().max() for key, value in codes.items()]
    assert apart and max(apart) < 1e-6  # sines differ in their last bit between processors


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("unet", lambda s: s.pop("conv_in.weight"), "UNet: missing: conv_in.weight"),
        ("unet", lambda s: s.update(extra=torch.zeros(1)), "UNet: unknown: extra"),
        (
            "image_controlnet",
            lambda s: s.update({"conv_in.bias": torch.zeros(3)}),
            r"image ControlNet: of another shape: conv_in.bias is \(3,\), expected \(32,\)",
        ),
        (
            "flow_controlnet",
            lambda s: s.pop("controlnet_mid_block.lora_A.cmcm_weights.weight"),
            "flow ControlNet: missing: controlnet_mid_block.lora_A.camera.weight",
        ),
        (
            "flow_controlnet",
            lambda s: [s.pop(key) for key in list(s) if "omcm" in key],
            "flow ControlNet: expected the object LoRA",
        ),
    ],
)
def test_a_wrong_key_is_named(tmp_path, name, change, message):
    state = dict(load_file(golden.FOLDER / f"{name}.safetensors"))
    change(state)
    save_file(state, tmp_path / "changed.safetensors")
    with pytest.raises(SystemExit, match=message):
        main(command(tmp_path / "model", **files(**{name: tmp_path / "changed.safetensors"})))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("[]", "valid dictionary|object"),
        ('{"unet": []}', "unet: "),
        ('{"lat_w": "wide"}', "lat_w: "),
        ('{"unet_additional_kwargs": {"motion_module_kwargs": 3}}', "unet_additional_kwargs.motion_module_kwargs: "),
    ],
)
def test_a_configuration_that_is_none_is_named(tmp_path, text, message):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"--config: .*c.json: .*({message})"):
        read_config(tmp_path / "c.json")
    with pytest.raises(CheckpointError, match="--config: .*none.json: not readable"):
        read_config(tmp_path / "none.json")


class Opened:
    """What a malicious checkpoint would hold: unpickling it runs code."""

    def __reduce__(self):
        return print, ("opened",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a checkpoint"),
        lambda path: torch.save({"state_dict": Opened()}, path),
        lambda path: torch.save({"step": 3}, path),
        lambda path: torch.save([torch.zeros(1)], path),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, capsys, write):
    write(tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match="c.ckpt"):
        read_checkpoint(tmp_path / "c.ckpt")
    assert "opened" not in capsys.readouterr().out


def test_an_output_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="--output"):
        main(command(tmp_path, **files()))


def test_a_base_without_parts_says_which(tmp_path):
    (tmp_path / "vae").mkdir()
    with pytest.raises(NotPublished, match="--base: .*: no text_encoder, tokenizer"):
        import_official(*(files()[name] for name in NAMES), base=tmp_path, config=files()["config"])


def test_the_full_size_has_the_authors_keys():
    networks = empty_networks(SD15, {"camera": 64, "object": 64})
    states = [network.state_dict() for network in networks]
    assert [len(state) for state in states] == [1226, 486, 1286]
    adapter = [value.numel() for key, value in states[2].items() if ".lora_" in key and ".object." in key]
    assert len(adapter) == 2 * 200 and 40.7e6 < sum(adapter) < 40.9e6
    assert 1.2e9 < sum(p.numel() for p in networks.unet.parameters()) < 1.4e9

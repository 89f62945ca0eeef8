"""A model where other programs look for it: diffusers' loader, the hub, ComfyUI's nodes."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from models.sampling.pipeline import ImageConductorPipeline
from models.serving.cli import main
from tests.unit import tiny
from tests.unit.fake_hub import FakeHub

ROOT = Path(__file__).parents[2]
STROKE = {"width": 24, "height": 16, "trajectories": [[[4, 4], [12, 8]]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reach") / "model"
    tiny.pipeline().save_pretrained(folder)
    return folder


def video(pipe, mode="object"):
    pipe.set_progress_bar_config(disable=True)
    given = {"generator": torch.manual_seed(0), "output_type": "latent", "trajectory_guidance_scale": 1.1}
    return pipe(Image.new("RGB", (24, 16), "teal"), "a lake", STROKE, mode, **given).frames


@pytest.mark.parametrize("custom", [True, False])
def test_diffusers_loads_the_folder_as_the_same_model(folder, tmp_path, monkeypatch, custom):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    more = {"custom_pipeline": str(folder)} if custom else {}
    loaded = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **more)
    assert type(loaded) is ImageConductorPipeline
    own = ImageConductorPipeline.from_pretrained(folder)
    assert loaded.settings == own.settings and loaded.latent_space == own.latent_space
    for mode in ("object", "camera"):
        assert torch.equal(video(loaded, mode), video(own, mode))
    loaded.to(torch.float64).save_pretrained(tmp_path / "again")
    assert ImageConductorPipeline.from_pretrained(tmp_path / "again").settings == own.settings


def test_a_model_that_diffusers_would_load_in_part_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    pipe = ImageConductorPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "model")
    save_file({"x": torch.zeros(1)}, tmp_path / "model" / "checkpoint.safetensors")
    from models.sampling.model_index import write_index

    write_index(tmp_path / "model", pipe.settings)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: diffusers would leave"):
        DiffusionPipeline.from_pretrained(tmp_path / "model", trust_remote_code=True)


def test_a_pushed_model_is_what_diffusers_downloads(folder, tmp_path, monkeypatch, capsys):
    hub = FakeHub(tmp_path / "hub", {}, token="secret")
    with hub.running() as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in ("HF_TOKEN", "HF_HUB_DISABLE_XET"):
            monkeypatch.setenv(name, "secret" if name == "HF_TOKEN" else "1")
        main(["push", "--model", str(folder), "--repo", "someone/lake", "--licence", "apache-2.0"])
        card = (tmp_path / "hub/someone/lake/README.md").read_text()
        assert card.startswith("---\nlicense: apache-2.0\n") and "3 frames of\n24x16 pixels" in card
        assert "DiffusionPipeline.from_pretrained('someone/lake'" in capsys.readouterr().out
        monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        loaded = DiffusionPipeline.from_pretrained(
            "someone/lake", trust_remote_code=True, cache_dir=tmp_path / "cache", token="secret"
        )
        assert torch.equal(video(loaded), video(ImageConductorPipeline.from_pretrained(folder)))
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(SystemExit, match="^image-conductor: --repo: someone/lake: not uploaded: .*401 Unauth"):
            main(["push", "--model", str(folder), "--repo", "someone/lake"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repo", "lake"], "--repo: expected OWNER/NAME, got 'lake'"),
        (["--repo", "a/b", "--model", "nowhere"], "--model: nowhere: no such folder"),
        (["--repo", "a/b", "--model", str(ROOT / "docs")], "no motion_controlnet"),
    ],
)
def test_what_cannot_be_pushed_is_said(options, message):
    with pytest.raises(SystemExit, match=f"^image-conductor: .*{message}"):
        main(["push", *options])


@pytest.fixture
def comfy(monkeypatch):
    """The nodes as ComfyUI imports them, with stand-ins for the two of its modules that they use."""
    steps: list[int] = []
    comfy, utils, management = ModuleType("comfy"), ModuleType("comfy.utils"), ModuleType("comfy.model_management")
    utils.ProgressBar = lambda total: type("Bar", (), {"update": lambda self, count: steps.append(total)})()
    management.throw_exception_if_processing_interrupted = lambda: None
    for name, module in (("comfy", comfy), ("comfy.utils", utils), ("comfy.model_management", management)):
        monkeypatch.setitem(sys.modules, name, module)
    place = ROOT / "integrations" / "comfyui" / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        "comfyui_nodes", place, submodule_search_locations=[str(place.parent)]
    )
    nodes = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "comfyui_nodes", nodes)
    spec.loader.exec_module(nodes)
    nodes.steps = steps
    return nodes


def run_node(nodes, name, **inputs):
    """Call a node as ComfyUI does, after a look at its declaration."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    declared = node.INPUT_TYPES()
    assert inputs.keys() <= declared["required"].keys() | declared.get("optional", {}).keys()
    assert declared["required"].keys() <= inputs.keys()
    made = getattr(node(), node.FUNCTION)(**inputs)
    assert len(made) == len(node.RETURN_TYPES)
    return made[0]


def test_comfyui_makes_the_video_that_python_makes(folder, comfy):
    assert comfy.NODE_CLASS_MAPPINGS.keys() == comfy.NODE_DISPLAY_NAME_MAPPINGS.keys()
    model = run_node(comfy, "ImageConductorLoadModel", model=str(folder), dtype="float32")
    model.set_progress_bar_config(disable=True)
    coordinates = [[{"x": 4, "y": 4}, {"x": 8, "y": 6}, {"x": 12, "y": 8}]]
    size = {"width": 24, "height": 16}
    drawn = run_node(comfy, "ImageConductorStrokes", **size, move="object", coordinates=json.dumps(coordinates))
    image = torch.rand(1, 16, 24, 3, generator=torch.manual_seed(1))
    wish = {"mode": "follow the strokes", "prompt": "a lake", "negative_prompt": "", "seed": 3, "steps": 2}
    frames = run_node(comfy, "ImageConductorSample", model=model, image=image, strokes=drawn, strength=1.0, **wish)
    assert frames.shape == (3, 16, 24, 3) and frames.dtype == torch.float32 and comfy.steps == [2, 2]
    picture = Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8))
    python = model(picture, "a lake", coordinates, "object", generator=torch.manual_seed(3), output_type="np")
    assert not np.array_equal(frames.numpy(), python.frames[0])  # bare coordinates lie on the authors' canvas
    python = model(picture, "a lake", drawn, "object", generator=torch.manual_seed(3), output_type="np")
    assert np.array_equal(frames.numpy(), python.frames[0])

    tracks = {
        "track_path": torch.tensor([[[2.0, 2]], [[6, 2]]]),
        "track_visibility": torch.ones(2, 1, dtype=torch.bool),
    }
    both = run_node(comfy, "ImageConductorStrokes", **size, move="camera", tracks=tracks, strokes=drawn)
    assert len(both.strokes) == len(both.camera_strokes) == 1
    moved = run_node(comfy, "ImageConductorSample", model=model, image=image, strokes=both, strength=1.0, **wish)
    assert not torch.equal(moved, frames)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "coordinates: give coordinates or tracks"),
        ({"coordinates": "x"}, "coordinates: expected the JSON text"),
        ({"coordinates": '[[{"x": 1}]]'}, r"trajectories\[0\]"),
    ],
)
def test_bad_coordinates_are_named(comfy, inputs, message):
    with pytest.raises(ValueError, match=message):
        run_node(comfy, "ImageConductorStrokes", width=24, height=16, move="object", **inputs)

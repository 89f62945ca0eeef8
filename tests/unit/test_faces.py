"""One behaviour behind all faces: Python, command line, pyfunc and HTTP service make the same bytes."""

import base64
import io
import json
from pathlib import Path

import av
import mlflow
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from mlflow.pyfunc.scoring_server import init
from PIL import Image

from models.sampling.pipeline import ImageConductorPipeline
from models.serving.cli import main
from models.video.write import encode_mp4
from tests.unit import tiny

ROOT = Path(__file__).parents[2]
STROKES = {"trajectories": [[[4, 4], [16, 8]]]}
LEFT_OUT = object()
SEED = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model whose own l_trajs is 2, a picture and its strokes."""
    folder = tmp_path_factory.mktemp("faces")
    pipe = tiny.pipeline()
    pipe.settings = pipe.settings.changed({"trajectory_guidance_scale": 2.0, "guidance_scale": 1.5})
    pipe.save_pretrained(folder / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    (folder / "strokes.json").write_text(json.dumps({"width": 24, "height": 16} | STROKES))
    return folder


@pytest.fixture(scope="module")
def served(folder):
    """The model as MLflow loads it, and its scoring server."""
    mlflow.pyfunc.save_model(
        folder / "logged",
        python_model=str(ROOT / "models/serving/pyfunc.py"),
        artifacts={"model": str(folder / "model")},
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(folder / "logged"))
    with TestClient(init(model)) as client:
        yield model, client


def in_python(folder: Path, scale: object) -> bytes:
    pipe = ImageConductorPipeline.from_pretrained(folder / "model")
    options = {} if scale is LEFT_OUT else {"trajectory_guidance_scale": scale}
    strokes = json.loads((folder / "strokes.json").read_text())
    generator = torch.Generator().manual_seed(SEED)
    video = pipe(
        Image.open(folder / "image.png"), "a circle", strokes, generator=generator, output_type="np", **options
    )
    return encode_mp4((video.frames[0] * 255).round().astype(np.uint8), pipe.settings.fps)


def without_record(video: bytes) -> bytes:
    """The file without its comment: the frames as they were encoded."""
    with av.open(io.BytesIO(video)) as container:
        return b"".join(bytes(packet) for packet in container.demux(video=0))


def on_the_command_line(folder: Path, scale: object) -> bytes:
    given = {"image": "image.png", "trajectories": "strokes.json", "output": "video.mp4", "model": "model"}
    arguments = [part for name, file in given.items() for part in (f"--{name}", str(folder / file))]
    chosen = [] if scale is LEFT_OUT else ["--plain-guidance"]
    if isinstance(scale, float):
        chosen = ["--trajectory-guidance-scale", str(scale)]
    main(["generate", *arguments, "--prompt", "a circle", "--seed", str(SEED), *chosen])
    return (folder / "video.mp4").read_bytes()


def record(folder: Path, scale: object) -> dict:
    image = base64.b64encode((folder / "image.png").read_bytes()).decode()
    fields = {"image": image, "mode": "object", "prompt": "a circle", "seed": SEED} | STROKES
    return fields if scale is LEFT_OUT else fields | {"trajectory_guidance_scale": scale}


@pytest.mark.parametrize("scale", [LEFT_OUT, None, 1.1], ids=["left out", "plain", "1.1"])
def test_four_faces_make_the_same_bytes(folder, served, scale):
    model, client = served
    expected = on_the_command_line(folder, scale)
    assert without_record(expected) == without_record(in_python(folder, scale))
    [answer] = model.predict([record(folder, scale)])
    assert base64.b64decode(dict(answer)["video"]) == expected
    response = client.post("/invocations", json={"inputs": [record(folder, scale)]})
    assert base64.b64decode(response.json()["predictions"][0]["video"]) == expected


def test_left_out_is_the_models_own_and_none_is_plain(folder):
    left_out, own, plain = (in_python(folder, scale) for scale in (LEFT_OUT, 2.0, None))
    assert left_out == own != plain

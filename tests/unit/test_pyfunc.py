"""The serving contract, through MLflow's own scoring server with a tiny model."""

import base64
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc.scoring_server import init
from PIL import Image

from models.video.read import read_video
from tests.unit import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> TestClient:
    folder = tmp_path_factory.mktemp("served")
    tiny.pipeline().save_pretrained(folder / "model")
    mlflow.pyfunc.save_model(
        folder / "logged",
        python_model=str(ROOT / "models" / "serving" / "pyfunc.py"),
        artifacts={"model": str(folder / "model")},
        pip_requirements=[],
    )
    with TestClient(init(mlflow.pyfunc.load_model(str(folder / "logged")))) as client:
        yield client


def picture(width: int = 24, height: int = 16, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def record(**fields) -> dict:
    return {"image": picture(), "trajectories": [[[4, 4], [12.5, 8]]], "mode": "object", "prompt": "a circle"} | fields


def post(client: TestClient, *records):
    return client.post("/invocations", json={"inputs": list(records)})


def answer(client: TestClient, **fields) -> dict:
    response = post(client, record(**fields))
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]


def test_a_request_becomes_a_video(client, tmp_path):
    result = answer(client, seed=7)
    assert {key: result[key] for key in ("mime_type", "num_frames", "fps", "width", "height", "seed", "cropped")} == {
        "mime_type": "video/mp4",
        "num_frames": tiny.FRAMES,
        "fps": 8,
        "width": tiny.WIDTH,
        "height": tiny.HEIGHT,
        "seed": 7,
        "cropped": "",
    }
    assert result["seconds"] > 0
    (tmp_path / "v.mp4").write_bytes(base64.b64decode(result["video"]))
    frames, fps = read_video(tmp_path / "v.mp4")
    assert frames.shape == (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3)
    assert fps == 8


def test_a_seed_can_be_repeated_also_one_that_was_drawn(client):
    drawn = answer(client)
    assert answer(client, seed=drawn["seed"])["video"] == drawn["video"]
    assert answer(client, seed=drawn["seed"] + 1)["video"] != drawn["video"]


def test_gif_jpeg_and_every_optional_field(client):
    result = answer(
        client,
        image=picture(48, 48, "JPEG"),
        mode="both",
        camera_trajectories=[[[20, 20], [30, 20]]],
        times=[[0, 0.5]],
        negative_prompt="",
        num_inference_steps=1,
        guidance_scale=2,
        trajectory_guidance_scale=1.5,
        controlnet_conditioning_scale=0.8,
        control_guidance_start=0.0,
        control_guidance_end=1.0,
        keyframes=[{"frame": tiny.FRAMES - 1, "image": picture(48, 48)}],
        output_format="gif",
    )
    assert result["mime_type"] == "image/gif"
    assert result["cropped"] == "16 pixels of the height"
    with Image.open(io.BytesIO(base64.b64decode(result["video"]))) as gif:
        assert gif.size == (tiny.WIDTH, tiny.HEIGHT)


def test_several_records(client):
    response = post(client, record(seed=1), record(seed=2))
    assert [result["seed"] for result in response.json()["predictions"]] == [1, 2]


@pytest.mark.parametrize("field", ["image", "trajectories", "mode", "prompt"])
def test_a_missing_field_is_named(client, field):
    incomplete = record()
    del incomplete[field]
    refused(post(client, incomplete), f"inputs[0].{field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", 5),
        ("image", "%%%"),
        ("image", ""),
        ("image", "é"),
        ("image", base64.b64encode(b"GIF89a").decode()),
        ("image", picture()[:40]),
        ("image", picture(400, 2)),
        ("trajectories", []),
        ("trajectories", [[]]),
        ("trajectories", [[[1]]]),
        ("trajectories", [[[1, "2"]]]),
        ("trajectories", [[[1, None]]]),
        ("trajectories", [[[100, 1]]]),
        ("trajectories", "left"),
        ("trajectories", [[[1, 1]] * 2000]),
        ("mode", "zoom"),
        ("mode", None),
        ("mode", "object\n"),
        ("prompt", 3),
        ("prompt", "x" * 5000),
        ("camera_trajectories", [[[-5, 1]]]),
        ("camera", {"move": "spin", "amount": 3.0}),
        ("personal_loras", {"nobody": 1.0}),
        ("times", [[0.5]]),
        ("times", [[1, 0]]),
        ("negative_prompt", 3),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", True),
        ("seed", 2**70),
        ("num_inference_steps", 0),
        ("num_inference_steps", "4"),
        ("guidance_scale", 0.5),
        ("guidance_scale", 1e9),
        ("trajectory_guidance_scale", -1),
        ("controlnet_conditioning_scale", 1e9),
        ("control_guidance_start", 1.0),
        ("control_guidance_end", 0.0),
        ("keyframes", [{"frame": 99, "image": picture()}]),
        ("keyframes", [{"frame": 1, "image": picture()}] * 2),
        ("keyframes", [{"frame": 1, "image": picture(48, 32)}]),
        ("keyframes", [{"frame": 1, "image": "%%%"}]),
        ("keyframes", [{"frame": 0, "image": picture()}]),
        ("keyframes", [{"frame": 1, "image": picture(), "more": 1}]),
        ("keyframes", [{"frame": 1, "image": picture()}] * 99),
        ("keyframes", {"1": "x"}),
        ("output_format", "avi"),
    ],
)
def test_a_bad_field_is_refused_by_name(client, field, value):
    refused(post(client, record(**{field: value})), f"inputs[0].{field}")


def test_the_known_name_that_an_unknown_field_is_like_is_said(client):
    refused(post(client, record(sead=1)), "inputs[0].*: unknown field; did you mean seed?")


def test_not_a_number_is_refused_by_name(client):
    for number in ("NaN", "Infinity", "1e999"):
        body = json.dumps({"inputs": [record(trajectories=[[[1, "NUMBER"]]])]}).replace('"NUMBER"', number)
        response = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
        refused(response, "inputs[0].trajectories[0][0][1]")


def test_mode_both_asks_for_camera_strokes(client):
    refused(post(client, record(mode="both")), "inputs[0].camera_trajectories")


def test_the_bad_record_of_several_is_named(client):
    refused(post(client, record(), record(mode="zoom")), "inputs[1].mode")


def test_too_many_or_no_records_are_refused(client):
    refused(post(client), "inputs")
    refused(post(client, *[record()] * 9), "inputs")


def test_a_large_bad_request_is_not_repeated_in_the_answer(client):
    response = post(client, record(image="A" * 1_000_000, mode="zoom"))
    assert response.status_code == 400
    assert len(response.text) < 1000


def refused(response, field: str):
    assert response.status_code == 400, response.text
    assert field in response.json()["message"]
    assert "Traceback" not in response.text

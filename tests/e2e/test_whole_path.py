"""The whole path at the smallest size: `dvc repro` in a copy of the project, then a request to the served result."""

import base64
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.project import frames_of, picture, post, run, served, small_project


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project's own files, as a git repository, with the smallest parameters; run to the end."""
    folder = tmp_path_factory.mktemp("project")
    small_project(folder)
    run(folder, "dvc", "repro")
    return folder


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_every_stage_leaves_what_it_promises(project):
    evaluation = json.loads((project / "metrics/evaluation.json").read_text())
    for key in ("cam_mc", "obj_mc"):
        for method in ("still", "no_control", "controlnet", "camera_lora", "object_lora", "real", "codec"):
            entry = evaluation[key][method]
            assert entry["px"] >= 0 and entry["n"] > 0 and len(entry["ci95"]) == 2
    assert json.loads((project / "metrics/registration.json").read_text())["alias_moves"] is True
    assert "<table>" in (project / "reports/evaluation/index.html").read_text()
    for part in ("unet", "motion_controlnet", "camera_lora", "object_lora", "vae", "text_encoder"):
        assert list((project / "artifacts/model" / part).glob("*.safetensors")), part


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_second_repro_changes_nothing(project):
    assert "up to date" in run(project, "dvc", "repro")


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_command_line_makes_a_video(project):
    Image.new("RGB", (200, 150), "teal").save(project / "image.png")
    strokes = {"width": 200, "height": 150, "trajectories": [[[60, 70], [120, 80]]]}
    (project / "strokes.json").write_text(json.dumps(strokes))
    options = ["--image", "image.png", "--trajectories", "strokes.json", "--prompt", "", "--output", "video.mp4"]
    run(project, "image-conductor", "generate", *options, "--mode", "object")
    assert frames_of((project / "video.mp4").read_bytes()) == 8


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_registered_model_answers_over_http(project):
    request = {
        "image": picture(96, 64),
        "trajectories": [[[30, 30], [60, 30]]],
        "mode": "object",
        "prompt": "",
        "seed": 3,
    }
    with served(project) as port:
        status, answer = post(port, {"inputs": [request]})
        assert status == 200, answer
        [record] = answer["predictions"]
        assert record["mime_type"] == "video/mp4" and record["seed"] == 3
        assert frames_of(base64.b64decode(record["video"])) == record["num_frames"]
        status, answer = post(port, {"inputs": [request | {"mode": "sideways"}]})
        assert 400 <= status < 500 and "mode" in json.dumps(answer) and "Traceback" not in json.dumps(answer)

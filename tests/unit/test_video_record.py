"""A video carries what it was made from, and is made again from that, byte for byte."""

import base64
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from models.sampling.identity import weights_hash
from models.serving.cli import main
from models.serving.record import MARK, embed, read_record
from models.serving.remake import gif_of_mp4, remake
from models.video.read import read_info, read_video
from models.video.write import encode_gif, encode_mp4
from stages.registry import explain_video
from tests.footage import moving_texture
from tests.unit import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model, a picture larger than its frame, strokes, and a folder that holds a checkout's parameters."""
    folder = tmp_path_factory.mktemp("record")
    tiny.pipeline().save_pretrained(folder / "artifacts/model")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    strokes = {"width": 50, "height": 40, "trajectories": [[[10, 10], [30, 21]]]}
    (folder / "strokes.json").write_text(json.dumps(strokes))
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return folder


def generate(folder: Path, output: str, *more: str) -> Path:
    given = {"image": "image.png", "trajectories": "strokes.json", "model": "artifacts/model", "output": output}
    arguments = [part for name, file in given.items() for part in (f"--{name}", str(folder / file))]
    main(["generate", *arguments, *more])
    return folder / output


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_names_its_model_seed_settings_and_strokes_and_is_made_again(folder, tmp_path, suffix):
    later = ("--keyframe", f"{tiny.FRAMES - 1}={folder / 'image.png'}")
    video = generate(folder, f"video.{suffix}", "--seed", "7", "--prompt", "a çircle", "--steps", "1", *later)
    record = read_record(video)

    assert record.weights == weights_hash(folder / "artifacts/model")
    assert (record.seed, record.prompt, record.settings["num_inference_steps"]) == (7, "a çircle", 1)
    assert record.strokes["trajectories"] == [[[10, 10], [30, 21]]]
    assert str(folder) not in record.as_text()
    remake(record, str(folder / "artifacts/model"), [], tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == video.read_bytes()


def test_a_record_changes_no_frame_and_no_time(folder, tmp_path):
    record = read_record(generate(folder, "plain.mp4", "--seed", "1"))
    frames = moving_texture(9, 64, 48)
    for name, data in (("a.mp4", encode_mp4(frames, 7.5)), ("a.gif", encode_gif(frames, 10))):
        bare, marked = tmp_path / f"bare-{name}", tmp_path / f"marked-{name}"
        bare.write_bytes(data)
        marked.write_bytes(embed(data, record))
        assert np.array_equal(read_video(bare)[0], read_video(marked)[0])
        assert read_info(bare).fps == read_info(marked).fps
        assert read_record(marked) == record


def test_the_gif_of_the_studio_is_made_again(folder, tmp_path):
    video = generate(folder, "studio.mp4", "--seed", "3")
    (tmp_path / "a.gif").write_bytes(gif_of_mp4(video))

    remake(read_record(tmp_path / "a.gif"), str(folder / "artifacts/model"), [], tmp_path / "again.gif")
    assert (tmp_path / "again.gif").read_bytes() == (tmp_path / "a.gif").read_bytes()


def test_the_command_explains_and_makes_again(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    video = generate(folder, "explained.mp4", "--seed", "5")
    main(["explain", str(video), "--remake", str(tmp_path / "again.mp4")])

    said = capsys.readouterr().out
    assert f"weights {weights_hash('artifacts/model')}" in said
    assert "no version of these weights" in said
    assert "byte for byte" in said


def test_a_video_of_the_service_names_its_version(folder, tmp_path, monkeypatch):
    logged = tmp_path / "logged"
    mlflow.pyfunc.save_model(
        logged,
        python_model=str(ROOT / "models/serving/pyfunc.py"),
        artifacts={"model": str(folder / "artifacts/model")},
        pip_requirements=[],
    )
    (logged / "registered_model_meta").write_text("model_name: image-conductor\nmodel_version: '4'\n")
    image = base64.b64encode((folder / "image.png").read_bytes()).decode()
    request = {"image": image, "mode": "object", "prompt": "", "trajectories": [[[10, 10], [30, 21]]], "seed": 2}
    [answer] = mlflow.pyfunc.load_model(str(logged)).predict([request])
    (tmp_path / "a.mp4").write_bytes(base64.b64decode(dict(answer)["video"]))

    record = read_record(tmp_path / "a.mp4")
    assert record.registered == "image-conductor/4"
    remake(record, str(folder / "artifacts/model"), [], tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def commented(text: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF", comment=text.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text", "not a readable MP4 or GIF"),
        (encode_mp4(moving_texture(2, 32, 16), 8), "carries no record"),
        (encode_gif(moving_texture(2, 32, 16), 8), "carries no record"),
        (commented(f'{{"{MARK}":99}}'), "newer program"),
        (commented(f'{{"{MARK}":1,'), "damaged"),
    ],
)
def test_a_file_without_a_good_record_ends_with_one_line(folder, tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(folder)
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(SystemExit, match=said) as ended:
        explain_video.main([str(tmp_path / "a.mp4")])
    assert "\n" not in str(ended.value)


def test_other_weights_are_refused_by_name(folder, tmp_path):
    video = generate(folder, "own.mp4", "--seed", "1")
    tiny.pipeline(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="--model: .*the video was made by"):
        remake(read_record(video), str(tmp_path / "other"), [], tmp_path / "a.mp4")

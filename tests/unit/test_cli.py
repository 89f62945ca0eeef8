"""The command line, with a tiny model."""

import json

import numpy as np
import pytest
from PIL import Image

from models.serving.cli import main
from models.video.read import read_video
from tests.unit import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    tiny.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def run(model, tmp_path, capsys):
    """Run `generate` on a picture and a stroke, with options replaced; the output file and what was printed."""
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "i.png")
    stroke = {"width": 32, "height": 32, "trajectories": [[[16, 16], [20, 16]]]}
    (tmp_path / "t.json").write_text(json.dumps(stroke))

    def generate(**replaced):
        options = {"image": "i.png", "trajectories": "t.json", "output": "out/v.mp4"}
        chosen = {key: value for key, value in (options | replaced).items() if value is not None}
        paths = {key: tmp_path / value for key, value in chosen.items() if key in options}
        others = {"model": model} | {key: value for key, value in replaced.items() if key not in options}
        given = {**paths, **others}
        main(["generate", *(f"--{key}" if value is True else f"--{key}={value}" for key, value in given.items())])
        return paths["output"], capsys.readouterr().out

    return generate


def test_generate_writes_a_video_that_a_seed_repeats(run):
    output, said = run(seed=3)
    frames, _ = read_video(output)
    assert frames.shape == (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3)
    assert "seed 3, cropped 11 pixels of the height" in said
    first = output.read_bytes()
    assert run(seed=3)[0].read_bytes() == first
    assert run(seed=4)[0].read_bytes() != first


def test_generate_writes_a_gif(run):
    output, _ = run(output="v.gif", mode="camera")
    with Image.open(output) as gif:
        assert gif.n_frames == tiny.FRAMES


def test_sampling_options_reach_the_sampler(run):
    video = run(seed=1, steps=4)[0]
    exact, frames = video.read_bytes(), read_video(video)[0]
    assert run(seed=1, steps=4, solver="dpmsolver++")[0].read_bytes() != exact
    assert run(seed=1, steps=4, **{"residual-interval": 2})[0].read_bytes() != exact
    assert np.array_equal(read_video(run(seed=1, steps=4, **{"vae-tiling": True})[0])[0], frames)
    halved = run(seed=1, steps=4, **{"control-scale": 0.5})[0].read_bytes()
    assert run(seed=1, steps=4, **{"control-end": 0.5})[0].read_bytes() not in (exact, halved)
    assert run(seed=1, steps=4, **{"control-scale": 1, "control-start": 0})[0].read_bytes() == exact != halved
    assert run(seed=1, steps=4, dtype="bfloat16")[0].read_bytes() != exact


def test_a_picture_of_a_later_frame_changes_the_video(run, tmp_path):
    alone = run(seed=1)[0].read_bytes()
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(tmp_path / "last.png")
    last = tiny.FRAMES - 1
    assert run(seed=1, keyframe=f"{last}={tmp_path / 'last.png'}")[0].read_bytes() != alone
    with pytest.raises(SystemExit, match=f"keyframes: different frames from 1 to {last} are needed, got {tiny.FRAMES}"):
        run(keyframe=f"{tiny.FRAMES}={tmp_path / 'last.png'}")
    Image.fromarray(np.full((16, 32, 3), 255, np.uint8)).save(tmp_path / "wide.png")
    with pytest.raises(SystemExit, match="keyframes: the picture of frame 1 has 32x16 pixels, the first 32x32"):
        run(keyframe=f"1={tmp_path / 'wide.png'}")


def test_a_camera_move_by_name_needs_no_strokes_and_goes_with_them_in_mode_both(run):
    alone, _ = run(trajectories=None, camera="zoom_in=6", mode="camera", seed=1)
    moved = alone.read_bytes()
    other, _ = run(trajectories=None, camera="pan_up=6", mode="camera", seed=1)
    assert other.read_bytes() != moved
    together, _ = run(camera="pan_up=6", mode="both", seed=1)
    assert together.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectories": None}, "--trajectories: give"),
        ({"camera": "zoom_in"}, "--camera: expected MOVE=PIXELS"),
        ({"camera": "spin=4"}, "camera.move"),
        ({"camera": "zoom_in=4", "mode": "camera"}, "--camera: beside --trajectories it needs --mode both, got camera"),
        ({"image": "none.png"}, "--image: .*no such file"),
        ({"image": "t.json"}, "--image: .*not a readable picture"),
        ({"trajectories": "none.json"}, "none.json: no such file"),
        ({"trajectories": "i.png"}, "i.png: not readable"),
        ({"output": "v.avi"}, "--output: .*must end in .mp4 or .gif"),
        ({"model": "nowhere"}, "--model: nowhere: no such folder"),
        ({"keyframe": "last.png"}, "--keyframe: expected FRAME=FILE"),
        ({"keyframe": "2=none.png"}, "--keyframe: .*no such file"),
        ({"control-start": 0.8, "control-end": 0.2}, "control_guidance_start, control_guidance_end: must rise"),
        ({"steps": 0}, "num_inference_steps"),
        ({"residual-interval": 0}, "residual_interval"),
        ({"mode": "both"}, "camera_trajectories"),
    ],
)
def test_a_mistake_is_one_line(run, options, message):
    with pytest.raises(SystemExit, match=rf"^image-conductor: .*{message}"):
        run(**options)


@pytest.mark.parametrize("options", [{"mode": "zoom"}, {"seed": "x"}, {"seed": -1}])
def test_a_bad_option_ends_with_usage(run, options):
    with pytest.raises(SystemExit) as refused:
        run(**options)
    assert refused.value.code == 2

"""The evaluation with a tiny model of the real classes: methods, equal noise, equal figures, the page."""

import numpy as np
import pytest
import torch

from models.evaluation.experiment import Case, generate, methods
from models.evaluation.report import write_report
from models.metrics import still_error, summarise, trajectory_error
from tests.unit import tiny

SCALES = [1.0, 1.1, 2.0]
NAMES = "no_control controlnet camera_lora object_lora object_lora_1.0 object_lora_1.1 object_lora_2.0".split()


def case(number: int, strokes: int = 1) -> Case:
    generator = torch.Generator().manual_seed(number)
    size = (tiny.CHANNELS, tiny.HEIGHT // tiny.FACTOR, tiny.WIDTH // tiny.FACTOR)
    path = np.linspace((6, 8), (16, 8), tiny.FRAMES, dtype=np.float32)
    wanted = np.stack([path + np.array([0, n]) for n in range(strokes)], 1).astype(np.float32)
    text = torch.randn(24, tiny.TEXT, generator=generator)
    return Case("picture", "line", torch.randn(size, generator=generator), text, wanted, number)


def videos(cases: list[Case], method: str, seed: int = 0, batch_size: int = 4) -> dict[int, np.ndarray]:
    chosen = next(m for m in methods(SCALES) if m.name == method)
    return {c.number: v for c, v in generate(tiny.pipeline(), cases, chosen, seed, batch_size)}


def test_the_methods_are_those_of_the_table():
    assert [method.name for method in methods(SCALES)] == NAMES


@pytest.mark.parametrize("method", NAMES)
def test_every_case_gets_a_video_under_every_method(method):
    made = videos([case(0), case(1, strokes=3), case(2)], method)
    assert set(made) == {0, 1, 2}
    for frames in made.values():
        assert frames.shape == (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3)
        assert frames.dtype == np.uint8


def test_a_video_depends_on_its_case_and_the_seed_and_not_on_its_batch():
    cases = [case(n) for n in range(3)]
    together, alone = videos(cases, "object_lora"), videos(cases, "object_lora", batch_size=1)
    for number, frames in together.items():
        assert np.abs(frames.astype(int) - alone[number]).max() <= 1
    again = videos(cases, "object_lora")
    assert all((again[number] == frames).all() for number, frames in together.items())
    other = videos(cases, "object_lora", seed=1)
    assert any((other[number] != frames).any() for number, frames in together.items())


def test_without_control_strokes_change_nothing():
    resting = Case(**{**vars(case(0)), "wanted": np.repeat(case(0).wanted[:1], tiny.FRAMES, 0)})
    assert (videos([case(0)], "no_control")[0] == videos([resting], "no_control")[0]).all()


def test_the_page_shows_every_figure_with_its_n_and_links_its_pictures(tmp_path):
    wanted = case(0).wanted
    seen = np.ones(wanted.shape[:2], bool)
    errors = [still_error(wanted), trajectory_error(wanted, seen, wanted)]
    summary = summarise([e.px for e in errors], [e.lost for e in errors], seed=0)
    entry = {"px": summary.mean, "ci95": [summary.low, summary.high], "n": 37, "failures": 5}
    share = {"share": 0.25, "ci95": [0.1, 0.4], "n": 37, "failures": 5}
    figures = {
        "cam_mc": dict.fromkeys(["still", *NAMES, "real", "codec"], entry),
        "obj_mc": dict.fromkeys(["still", *NAMES, "real", "codec"], entry),
        "leakage": {"object_mode_background": share, "camera_mode_background": share},
        "distances": {"frechet_codec": {"distance": 1.5, "n": 37, "n_real": 99}},
        "profile": "pocket",
        "seed": 0,
    }
    page = tmp_path / "index.html"
    write_report(page, figures, {"Camera strokes": [("pan <left>", "camera-0-pan_left.gif")]})
    html = page.read_text(encoding="utf-8")
    assert html.count("37") >= 2 * (len(NAMES) + 3) + 3
    assert 'src="camera-0-pan_left.gif"' in html
    assert "pan &lt;left&gt;" in html
    assert "33.49" in html and "quoted" in html.lower()
    assert "http" not in html.replace("https://arxiv.org", "")

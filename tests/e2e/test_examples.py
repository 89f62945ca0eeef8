"""The examples run in a bare clone: the script, and the notebook cell by cell in one namespace."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from examples import animate

ROOT = Path(__file__).parents[2]


def test_the_script_writes_a_video_of_the_models_size(tmp_path):
    target = tmp_path / "video.gif"
    with redirect_stdout(io.StringIO()) as said:
        animate.main(["--output", str(target)])

    with Image.open(target) as video:
        assert (video.size, video.n_frames) == ((96, 64), 8)
    assert "8 frames of 96x64" in said.getvalue()


def test_the_notebook_runs_and_the_longer_stroke_moves_the_object_further(monkeypatch):
    monkeypatch.chdir(ROOT)
    notebook = json.loads((ROOT / "examples/animate.ipynb").read_text(encoding="utf-8"))
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"animate.ipynb, {cell['id']}", "exec"), names)

    short, long = names["moved"].values()
    assert long / short == pytest.approx(2, rel=0.25)


def test_the_notebook_is_kept_without_results():
    notebook = json.loads((ROOT / "examples/animate.ipynb").read_text(encoding="utf-8"))

    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook["cells"])

"""The stroke editor's script: it places strokes as Python does, is small, and makes nothing global."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.strokes.stroke import Stroke, interpolate

PAGE = Path(__file__).parents[2] / "models" / "serving" / "studio" / "page"
STROKES = [
    ([[10, 20]], [0]),
    ([[10, 20], [200, 90]], [0, 1]),
    ([[10, 20], [200, 90]], [0.2, 0.7]),
    ([[10, 20], [60, 90], [30, 10]], [0, 0.4, 1]),
    ([[5, 5], [5, 90], [80, 90], [80, 5], [6, 5]], [0, 0.1, 0.5, 0.55, 1]),
    ([[1, 1], [2, 1], [2, 1], [3, 9], [2, 30], [90, 4]], [0.05, 0.2, 0.3, 0.6, 0.61, 0.9]),
]


@pytest.fixture(scope="module")
def node():
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None:
        pytest.skip("no node here; Debian: apt install nodejs")
    return found


def run(node: str, program: str):
    script = (PAGE / "curves.js").read_text(encoding="utf-8")
    text = f"{script}\nprocess.stdout.write(JSON.stringify({program}));"
    return json.loads(subprocess.run([node, "-e", text], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("frames", [2, 16, 81])
def test_script_and_python_give_the_same_points_per_frame(node, frames):
    found = run(node, f"{json.dumps(STROKES)}.map(([points, times]) => positions(points, times, {frames}))")
    for (points, times), places in zip(STROKES, found, strict=True):
        stroke = Stroke(np.array(points, float), np.array(times, float), np.ones(len(points), bool))
        np.testing.assert_allclose(places, interpolate(stroke, frames), atol=1e-9)


@pytest.mark.parametrize("speed", ["steady", "in", "out", "both"])
def test_speed_and_timing_become_times_that_rise(node, speed):
    stroke = {"points": [[0, 0], [10, 0], [100, 0]], "start": 0.2, "end": 0.8, "speed": speed}
    found = run(node, f"timed({json.dumps(stroke)})")
    times = np.array(found["times"])
    assert np.all(np.diff(times) > 0) and times[0] == pytest.approx(0.2) and times[-1] == pytest.approx(0.8)
    made = Stroke(np.array(found["points"], float), times, np.ones(len(times), bool))
    x = interpolate(made, 101)[20:81, 0]
    assert x[0] == pytest.approx(0, abs=0.5) and x[-1] == pytest.approx(100, abs=0.5)
    first, last = x[1] - x[0], x[-1] - x[-2]
    slow = {"steady": first / last, "in": last / first, "out": first / last, "both": x[30] - x[29]}
    if speed == "steady":
        assert slow["steady"] == pytest.approx(1, rel=0.05)
    else:
        assert slow[speed] > (2 if speed != "both" else 1.5 * first)


def test_a_freehand_path_is_thinned_to_few_points(node):
    path = [[float(x), 40 * np.sin(x / 30)] for x in range(200)]
    kept = run(node, f"keptPoints({json.dumps(path)}, 2)")
    assert kept[0] == 0 and kept[-1] == 199 and 4 <= len(kept) <= 16


def test_the_script_is_small_and_makes_nothing_global(node):
    """It runs as a function's body in strict mode, where an undeclared name is an error."""
    lines = sum((PAGE / name).read_text(encoding="utf-8").count("\n") for name in ("curves.js", "editor.js"))
    assert lines <= 600
    text = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("curves.js", "editor.js"))
    assert not re.search(r"\b(window|globalThis|self)\s*[.\[]|\binnerHTML\b|\beval\(", text)
    body = "new Function('element', 'props', 'trigger', 'watch', 'server', require('fs').readFileSync(0, 'utf8'))"
    subprocess.run([node, "-e", body], input=f"'use strict';\n{text}", text=True, check=True)


def test_templates_hold_nothing_that_gradio_would_fill_in():
    """gradio fills `${...}` and `{{...}}` of template and style with values; ours have none, so nothing is executed."""
    for name in ("editor.html", "editor.css"):
        assert not re.search(r"\$\{|\{\{", (PAGE / name).read_text(encoding="utf-8"))

"""Parts of the page: the stroke editor, the form, the progress bar, example pictures, theme and style.

What computes is imported where it is first needed, so that the page opens soon.
"""

import base64
import html
import json
import math
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from models.errors import UserError
from models.serving.studio.form import EQ_5, MAX_VARIATIONS, PLAIN, SOLVER_OF_MODEL
from models.serving.studio.late import import_light
from models.strokes.camera_presets import CAMERA_MOVES, camera_strokes

PAGE = Path(__file__).with_name("page")
EXAMPLES = sorted(PAGE.glob("example-*.jpg"))  # first frames of procedural scenes
SHOWN = ("wanted strokes", "tracked points")
SOLVERS = (SOLVER_OF_MODEL, "ddim", "dpmsolver++")
MODES = ("follow the drawing", "object", "camera", "both")
GUIDANCE_KINDS = (SOLVER_OF_MODEL, PLAIN, EQ_5)
STYLE = PAGE / "page.css"


def page_theme() -> gr.themes.Base:
    """Fonts of the reader's own system, so that the page loads nothing from elsewhere."""
    fonts = ["system-ui", "sans-serif"]
    theme = gr.themes.Soft(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
    title = {"background_fill": "transparent", "text_color": "*neutral_600", "text_weight": "500", "padding": "0"}
    label = {"background_fill": "*neutral_50", "text_color": "*neutral_600", "text_weight": "500", "shadow": "none"}
    line = {"border_width": "1px", "border_color": "*neutral_200", "shadow": "none"}
    parts = {"block_title": title, "block_label": label, "block": line, "input": line}
    return theme.set(**{f"{part}_{name}": value for part, values in parts.items() for name, value in values.items()})


def stroke_editor() -> gr.HTML:
    """The editor; its value is the JSON text that `models.serving.studio.drawing` reads."""
    script = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in ("curves.js", "editor.js"))
    return gr.HTML(
        html_template=(PAGE / "editor.html").read_text(encoding="utf-8"),
        css_template=(PAGE / "editor.css").read_text(encoding="utf-8"),
        js_on_load=script,
        apply_default_css=False,
        server_functions=[camera_move, estimate_frames],
        moves=json.dumps(CAMERA_MOVES),
        elem_id="studio-editor",
    )


def camera_move(text: str) -> list[Any]:
    """Strokes [[[x, y], ...], ...] of a named camera move; none if it is unknown.

    Args:
        text: JSON of `move`, of `share`, the strokes' length as a share of the width, and of `width` and `height`.
    """
    import_light()
    from models.strokes.stroke import MAX_SIDE

    try:
        asked = json.loads(text)
        move, share = asked["move"], float(asked["share"])
        sides = [min(max(int(asked[side]), 1), MAX_SIDE) for side in ("width", "height")]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return []
    if not math.isfinite(share):
        return []
    amount = min(max(share, 0.0), 1.0) * sides[0]
    if move == "zoom_out":
        amount = min(amount, 0.9 * math.hypot(*sides) / 4)
    try:
        return [np.round(stroke, 2).tolist() for stroke in camera_strokes(move, amount, *sides)]  # type: ignore[arg-type]
    except ValueError:
        return []


def estimate_frames(text: str) -> dict[str, Any]:
    """The frames of the estimate as data URLs, or what is wrong with the drawing."""
    import_light()
    from models.serving.studio.drawing import read_drawing
    from models.serving.studio.estimate import as_data_urls, warped_frames

    try:
        return {"frames": as_data_urls(warped_frames(read_drawing(text)))}
    except UserError as error:
        return {"error": str(error)}


def form_fields() -> list[Any]:
    """The form, in the order of `models.serving.studio.work.Form`."""
    prompt = gr.Textbox(label="Prompt", placeholder="what the video shows", lines=2, elem_id="studio-prompt")
    with gr.Accordion("Settings", open=False):
        negative = gr.Textbox(label="Negative prompt", placeholder="what it should not show")
        mode = gr.Radio(list(MODES), value=MODES[0], label="The strokes move")
        with gr.Row():
            seed = gr.Number(label="Seed", value=0, precision=0, elem_id="studio-seed")
            locked = gr.Checkbox(label="Keep the seed", elem_id="studio-locked")
        with gr.Row():
            steps = gr.Number(label="Steps, 0: of the model", value=0, precision=0, elem_id="studio-steps")
            solver = gr.Dropdown(list(SOLVERS), value=SOLVERS[0], label="Solver")
        with gr.Row():
            guidance = gr.Number(label="Guidance scale, 0: of the model", value=0)
            kind = gr.Dropdown(list(GUIDANCE_KINDS), value=GUIDANCE_KINDS[0], label="Guidance by strokes")
            l_trajs = gr.Number(label="l_trajs of camera-free guidance", value=1.1)
        with gr.Row():
            scale = gr.Number(label="Strength of the strokes", value=1, min_width=90, elem_id="studio-strength")
            start = gr.Number(label="From share", value=0, min_width=90)
            end = gr.Number(label="To share of the steps", value=1, min_width=90)
        personal = gr.Textbox(label="Weights of the model's personal LoRAs", placeholder="style=0.8, light=0.5")
        with gr.Row():
            keyframes = gr.File(
                label="Later pictures",
                file_count="multiple",
                file_types=["image"],
                height=120,
                elem_id="studio-keyframes",
            )
            numbers = gr.Textbox(label="Their frame numbers", placeholder="8, 15", elem_id="studio-keyframe-numbers")
    fields = [prompt, negative, mode, seed, locked, steps, solver, guidance, kind, l_trajs]
    variations = gr.Slider(1, MAX_VARIATIONS, 1, step=1, label="Variations", elem_id="studio-variations")
    return [*fields, scale, start, end, keyframes, numbers, personal, variations]


def progress_bar(text: str, share: float | None, bad: bool = False, preview: bytes | None = None) -> str:
    """A line, a bar while `share` is known, and the JPEG of a preview."""
    line = f'<p class="studio-line{" studio-bad" if bad else ""}" role="status">{html.escape(text)}</p>'
    if share is None:
        return line
    bar = f'<div class="studio-bar"><i style="width:{100 * share:.0f}%"></i></div>'
    if preview is None:
        return line + bar
    source = f"data:image/jpeg;base64,{base64.b64encode(preview).decode()}"
    return f'{line}{bar}<img class="studio-preview" src="{source}" alt="the middle frame so far">'


def video_slider(left: tuple[str | None, str], right: tuple[str | None, str]) -> str:
    """Two videos in one frame, with a slider that shows the left part of one and the right part of the other.

    Args:
        left, right: path of a file that the page may read, None where a video is gone, and what it is called.
    """
    if left[0] is None or right[0] is None:
        return progress_bar("Open a video, then choose another one that is still in the history.", None, bad=True)
    videos = "".join(_video(path) for path, _ in (left, right) if path)
    move = "this.closest('.studio-slider').style.setProperty('--cut', this.value + '%')"
    slider = f'<input type="range" min="0" max="100" value="50" aria-label="share of the left video" oninput="{move}">'
    names = "".join(f"<span>{html.escape(name)}</span>" for _, name in (left, right))
    frame = f'<div class="studio-frame">{videos}<i></i></div>'
    return f'<div class="studio-slider">{frame}{slider}<p class="studio-names">{names}</p></div>'


def playing_together(videos: Sequence[tuple[str, str]]) -> str:
    """Videos, each a path of a file that the page may read and its title, which play side by side."""
    figures = (
        f"<figure>{_video(path)}<figcaption>{html.escape(title)}</figcaption></figure>" for path, title in videos
    )
    return f'<div class="studio-grid">{"".join(figures)}</div>'


def _video(path: str) -> str:
    """A looped video; the address is relative, so that the page works below any path."""
    return f'<video src="gradio_api/file={urllib.parse.quote(path)}" autoplay loop muted playsinline></video>'


def example_drawing(number: int) -> str:
    """The editor's value for an example picture."""
    import_light()
    from PIL import Image

    from models.serving.studio.drawing import new_drawing

    return new_drawing(Image.open(EXAMPLES[number]))

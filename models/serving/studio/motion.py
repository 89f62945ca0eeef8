"""The part of the page that takes strokes from files of other tools and from the motion of a video."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from models.errors import UserError
from models.serving.studio.clips import ClipShelf
from models.serving.studio.late import import_light
from models.serving.studio.widgets import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from models.strokes.stroke import Trajectories

FORMATS = "Trajectory file: JSON, ComfyUI, Wan-Move .npy, CoTracker .npz or .safetensors, ATI .pth"
DOT, RING = 0.016, "#f2542d"  # radius of a clicked point as a share of the frame's width, and its colour


class StrokeSources:
    """Two accordions, which lie where the object is made; `connect` lets their strokes come into the editor."""

    def __init__(self, shelf: ClipShelf, made: Path):
        """`made`: a folder for clips that are read from shards."""
        self._shelf, self._made = shelf, made
        with gr.Accordion("Strokes from a file", open=False):
            self._files = gr.File(label=FORMATS, file_count="multiple", height=120, elem_id="studio-strokes")
        with gr.Accordion("Motion from a video", open=False):
            names = shelf.names()
            self._upload = gr.File(label="Short video", file_types=["video"], height=120, elem_id="studio-clip")
            self._clip = gr.Dropdown(
                [("none", ""), *((name, name) for name in names)],
                value="",
                label="Or a curated clip",
                visible=bool(names),
                elem_id="studio-curated",
            )
            self._frame = gr.Image(
                label="First frame: click the points to follow",
                interactive=False,
                visible=False,
                buttons=[],
                elem_id="studio-frame",
            )
            with gr.Row():
                self._follow = gr.Button("Follow the points", size="sm", elem_id="studio-follow")
                self._forget = gr.Button("Clear the points", size="sm")
                self._follow_grid = gr.Button("Follow a grid", size="sm", elem_id="studio-follow-grid")
            self._side = gr.Slider(2, 16, 6, step=1, label="Points per side of the grid")
            self._video, self._points = gr.State(""), gr.State([])

    def connect(self, editor: Any, progress: Any) -> None:
        """Strokes go into the editor; `progress` shows a line about them or about what is wrong."""
        drawn = [editor, progress]
        shown = [self._frame, self._video, self._points, progress]
        self._files.upload(_add_files, [editor, self._files], drawn)
        self._upload.upload(lambda found: _opened(lambda: Path(found or "")), self._upload, shown)
        self._clip.input(lambda name: _opened(lambda: self._shelf.file(str(name), self._made)), self._clip, shown)
        self._frame.select(_click, [self._video, self._points], [self._frame, self._points])
        self._forget.click(lambda video: [_marked(video, []), []], self._video, [self._frame, self._points])
        self._follow.click(_follow, [editor, self._video, self._points], drawn)
        self._follow_grid.click(_follow, [editor, self._video, self._side], drawn)


def told(make: Callable[[], tuple[str, str]]) -> list[Any]:
    """The editor's value and a line about it, or only what is wrong."""
    try:
        value, said = make()
    except UserError as error:
        return [gr.skip(), progress_bar(str(error), None, bad=True)]
    return [value, progress_bar(said, None)]


def _add_files(text: str, found: list[str] | None) -> list[Any]:
    import_light()
    from models.serving.studio.importing import strokes_of_files

    return _added(text, lambda size: strokes_of_files([Path(path) for path in found or []], size))


def _follow(text: str, video: str, points: list[tuple[float, float]] | float) -> list[Any]:
    """The editor with the motion of points of a video, or of a grid of so many points a side."""
    import_light()
    from models.serving.studio.importing import strokes_of_video

    if not video:
        return [gr.skip(), progress_bar("video: give a short one, or choose a curated clip", None, bad=True)]
    starts = points if isinstance(points, list) else int(points)  # a slider may send 6.0
    return _added(text, lambda size: strokes_of_video(Path(video), starts, size))


def _added(text: str, read: "Callable[[tuple[int, int]], tuple[Trajectories, str]]") -> list[Any]:
    """The editor with more strokes, and a line about them or about what is wrong."""
    import_light()
    from models.serving.studio.drawing import canvas_of, with_strokes

    def both() -> tuple[str, str]:
        drawn, said = read(canvas_of(text))
        return with_strokes(text, drawn), said

    return told(both)


def _opened(find: Callable[[], Path]) -> list[Any]:
    """The first frame of a video, its path, no points, and a line about it or about what is wrong."""
    try:
        path = str(find())
        frame = _marked(path, [])
    except UserError as error:
        return [gr.update(visible=False), "", [], progress_bar(str(error), None, bad=True)]
    return [
        gr.update(value=frame, visible=True),
        path,
        [],
        progress_bar("Click points on the frame, or follow a grid.", None),
    ]


def _click(event: gr.SelectData, video: str, points: list[tuple[float, float]]) -> list[Any]:
    x, y = event.index
    marked = [*points, (float(x), float(y))]
    return [_marked(video, marked), marked]


def _marked(video: str, points: list[tuple[float, float]]) -> "np.ndarray | None":
    """The first frame (H, W, 3) of a video with dots on the points."""
    import_light()
    import numpy as np
    from PIL import Image, ImageDraw

    from models.serving.studio.importing import frames_to_track

    if not video:
        return None
    picture = Image.fromarray(frames_to_track(Path(video))[0])
    radius = max(1.0, DOT * picture.width)
    for x, y in points:
        ImageDraw.Draw(picture).ellipse(
            [x - radius, y - radius, x + radius, y + radius], fill="white", outline=RING, width=2
        )
    return np.asarray(picture)

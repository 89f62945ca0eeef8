"""The page of the studio, built with gradio; only the stroke editor is our own.

What computes is imported where it is first needed, so that the page opens soon.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from models.errors import UserError
from models.serving.studio.form import Form
from models.serving.studio.history import History, HistoryEntry
from models.serving.studio.sampler import Sampler
from models.serving.studio.widgets import (
    EXAMPLES,
    SHOWN,
    example_drawing,
    form_fields,
    progress_bar,
    stroke_editor,
    video_slider,
)

if TYPE_CHECKING:
    from models.serving.studio.work import Studio
    from models.strokes.stroke import Trajectories

TITLE = "# Image Conductor Studio\nDraw how things move, watch it, and see how well it was followed."
FORMATS = "Trajectory file: JSON, ComfyUI, Wan-Move .npy, CoTracker .npz or .safetensors, ATI .pth"


def make_page(sampler: Sampler, history: History, studio: "Callable[[], Studio]") -> gr.Blocks:
    """The page; `launch` it with the theme and style of `models.serving.studio.widgets`.

    Args:
        studio: gives the one studio; its first call imports what computes.
    """
    with gr.Blocks(title="Image Conductor Studio", analytics_enabled=False) as page:
        gr.Markdown(TITLE, elem_id="studio-title")
        status = gr.HTML(_status(sampler), elem_id="studio-status")
        with gr.Row():
            with gr.Column(scale=3, min_width=340):
                editor = stroke_editor()
                examples = gr.Gallery(
                    [str(path) for path in EXAMPLES],
                    label="Examples",
                    columns=4,
                    height=150,
                    allow_preview=False,
                    elem_id="studio-examples",
                )
                with gr.Accordion("Strokes from a file or a video", open=False):
                    files = gr.File(label=FORMATS, file_count="multiple", height=120, elem_id="studio-strokes")
                    clip = gr.File(label="Short video whose motion becomes strokes", height=120, elem_id="studio-clip")
                    grid = gr.Slider(2, 16, 6, step=1, label="Points followed per side of the video")
            with gr.Column(scale=2, min_width=320):
                form = form_fields()
                with gr.Row():
                    go = gr.Button("Make video", variant="primary", elem_id="studio-make")
                    cancel = gr.Button("Cancel", interactive=False, elem_id="studio-cancel")
                progress = gr.HTML(elem_id="studio-progress")
                video = gr.Video(label="Result", autoplay=True, loop=True, height=320, elem_id="studio-video")
                layers = gr.CheckboxGroup(list(SHOWN), value=[SHOWN[0]], label="Drawn over it", elem_id="studio-layers")
                errors = gr.Markdown(elem_id="studio-errors")
                with gr.Row(visible=False) as after:
                    mp4 = gr.DownloadButton("mp4", size="sm", elem_id="studio-mp4")
                    gif = gr.DownloadButton("gif", size="sm")
                    last = gr.DownloadButton("Last frame", size="sm")
                    onward = gr.Button("Continue", size="sm", elem_id="studio-continue")
                    forget = gr.Button("Delete", size="sm", elem_id="studio-forget")
                variations = gr.Gallery(
                    label="Variations, side by side",
                    columns=2,
                    height=300,
                    allow_preview=False,
                    visible=False,
                    elem_id="studio-side-by-side",
                )
                with gr.Accordion("Compare with another video", open=False):
                    other = gr.Dropdown([], label="Behind the slider", elem_id="studio-other")
                    slider = gr.HTML(elem_id="studio-compared")
                with gr.Accordion("Make it elsewhere", open=False):
                    command = gr.Code(label="Command line", language="shell", elem_id="studio-command")
                    python = gr.Code(label="Python", language="python")
                    curl = gr.Code(label="curl", language="shell")
        gr.Markdown("### History")
        gallery = gr.Gallery(show_label=False, columns=8, height=200, allow_preview=False, elem_id="studio-history")
        names, opened, made_together = gr.State([]), gr.State(""), gr.State([])
        view = [video, errors, after, mp4, gif, last, command, python, curl, opened]
        shelf = [gallery, names, other]
        beside = [variations, made_together]

        def shown_entry(entry: HistoryEntry | None, chosen: list[str]) -> list[Any]:
            if entry is None:
                return [None, "", gr.update(visible=False), None, None, None, "", "", "", ""]
            made = studio().files(entry)
            picture = studio().overlaid(entry, *(name in chosen for name in SHOWN))
            downloads = [str(entry.video), str(made.gif), str(made.last_frame)]
            facts = entry.facts
            return [picture, facts["errors"], gr.update(visible=True), *downloads, *facts["recipes"], entry.name]

        def shelved() -> list[Any]:
            entries = history.entries()
            pictures = [(str(entry.folder / "thumbnail.jpg"), entry.title) for entry in entries]
            choices = [(f"{entry.title}, seed {entry.facts.get('seed')}", entry.name) for entry in entries]
            return [pictures, [entry.name for entry in entries], gr.update(choices=choices, value=None)]

        def side_by_side(chosen: list[str], together: list[str]) -> list[Any]:
            videos = studio().compared(together, *(name in chosen for name in SHOWN))
            return [gr.update(value=videos, visible=len(together) > 1), together]

        def make(request: gr.Request, text: str, chosen: list[str], *values: Any) -> Iterator[list[Any]]:
            quiet = [gr.skip()] * (len(view) + len(shelf) + len(beside))
            together: list[str] = []
            preview = None
            try:
                for update in studio().make(str(request.session_hash), text, Form(*values)):
                    preview = None if update.entry or not update.running else update.preview or preview
                    bar = progress_bar(update.text, update.share, preview=preview)
                    fresh = quiet
                    if update.entry is not None:
                        together.append(update.entry.name)
                        fresh = [*shown_entry(update.entry, chosen), *shelved(), *side_by_side(chosen, together)]
                    yield [bar, gr.update(interactive=update.running), *fresh]
            except ValueError as error:
                yield [progress_bar(str(error), None, bad=True), gr.update(interactive=False), *quiet]

        def stop(request: gr.Request) -> None:
            studio().cancel(str(request.session_hash))

        def pick(event: gr.SelectData, known: list[str], chosen: list[str]) -> list[Any]:
            index = int(event.index)
            entry = history.find(known[index]) if index < len(known) else None
            drawn = [gr.skip()] * (1 + len(form)) if entry is None else [entry.drawing(), *Form(*entry.facts["form"])]
            return [*drawn, *shown_entry(entry, chosen)]

        def remove(name: str, chosen: list[str]) -> list[Any]:
            history.remove(name)
            return [*shown_entry(None, chosen), *shelved()]

        def go_on(name: str) -> list[Any]:
            return _told(lambda: (studio().onward(name), "The strokes go on from the last frame."))

        making: Any = {"concurrency_limit": 1, "concurrency_id": "sampler", "show_progress": "hidden"}
        go.click(make, [editor, layers, *form], [progress, cancel, *view, *shelf, *beside], **making)
        cancel.click(stop, None, None, queue=False)
        examples.select(_pick_example, None, editor)
        files.upload(_add_files, [editor, files], [editor, progress])
        clip.upload(_add_clip, [editor, clip, grid], [editor, progress])
        gallery.select(pick, [names, layers], [editor, *form, *view])
        variations.select(pick, [made_together, layers], [editor, *form, *view])
        other.input(
            lambda name, behind: video_slider(*(studio().overlay_of(each, False, False) for each in (name, behind))),
            [opened, other],
            slider,
        )
        layers.change(
            lambda name, chosen: studio().overlay_of(name, *(each in chosen for each in SHOWN)), [opened, layers], video
        )
        onward.click(go_on, opened, [editor, progress])
        forget.click(remove, [opened, layers], [*view, *shelf])
        page.load(shelved, None, shelf)
        page.load(sampler.begin, None, None, show_progress="hidden")
        gr.Timer(2).tick(lambda: _status(sampler), None, status, show_progress="hidden")
    return page


def _status(sampler: Sampler) -> str:
    return progress_bar(*sampler.status())


def _pick_example(event: gr.SelectData) -> str:
    return example_drawing(int(event.index))


def _add_files(text: str, found: list[str] | None) -> list[Any]:
    from models.serving.studio.importing import strokes_of_files

    return _added(text, lambda size: strokes_of_files([Path(path) for path in found or []], size))


def _add_clip(text: str, found: str | None, points: float) -> list[Any]:
    from models.serving.studio.importing import strokes_of_video

    return _added(text, lambda size: strokes_of_video(Path(found or ""), int(points), size))


def _added(text: str, read: "Callable[[tuple[int, int]], tuple[Trajectories, str]]") -> list[Any]:
    """The editor with more strokes, and a line about them or about what is wrong."""
    from models.serving.studio.drawing import canvas_of, with_strokes

    def both() -> tuple[str, str]:
        drawn, said = read(canvas_of(text))
        return with_strokes(text, drawn), said

    return _told(both)


def _told(make: Callable[[], tuple[str, str]]) -> list[Any]:
    try:
        value, said = make()
    except UserError as error:
        return [gr.skip(), progress_bar(str(error), None, bad=True)]
    return [value, progress_bar(said, None)]

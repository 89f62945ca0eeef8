"""The page of the studio, built with gradio; only the stroke editor is our own.

What computes is imported where it is first needed, so that the page opens soon.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from models.serving.studio.form import Form
from models.serving.studio.history import History, HistoryEntry
from models.serving.studio.motion import StrokeSources, told
from models.serving.studio.sampler import Sampler
from models.serving.studio.widgets import (
    EXAMPLES,
    SHOWN,
    example_drawing,
    form_fields,
    playing_together,
    progress_bar,
    stroke_editor,
    video_slider,
)

if TYPE_CHECKING:
    from models.serving.studio.work import Studio

TITLE = "# Image Conductor Studio\nDraw how things move, watch it, and see how well it was followed."


def make_page(
    sampler: Sampler, history: History, studio: "Callable[[], Studio]", make_sources: Callable[[], StrokeSources]
) -> gr.Blocks:
    """The page; `launch` it with the theme and style of `models.serving.studio.widgets`.

    Args:
        studio: gives the one studio; its first call imports what computes.
        make_sources: builds the part for strokes from files and videos, where it is called.
    """
    with gr.Blocks(title="Image Conductor Studio", analytics_enabled=False) as page:
        with gr.Row(elem_id="studio-head"):
            gr.Markdown(TITLE, elem_id="studio-title")
            status = gr.HTML(_status(sampler), elem_id="studio-status")
        with gr.Row():
            with gr.Column(scale=3, min_width=340, elem_id="studio-left"):
                editor = stroke_editor()
                examples = gr.Gallery(
                    [str(path) for path in EXAMPLES],
                    label="Examples",
                    show_label=False,
                    columns=4,
                    height=128,
                    object_fit="cover",
                    allow_preview=False,
                    buttons=[],
                    elem_id="studio-examples",
                )
                sources = make_sources()
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
                    mp4 = gr.DownloadButton("mp4", size="sm", min_width=70, elem_id="studio-mp4")
                    gif = gr.DownloadButton("gif", size="sm", min_width=70)
                    last = gr.DownloadButton("Last frame", size="sm", min_width=70)
                    onward = gr.Button("Continue", size="sm", min_width=70, elem_id="studio-continue")
                    forget = gr.Button("Delete", size="sm", min_width=70, elem_id="studio-forget")
                beside = gr.HTML(visible=False, elem_id="studio-side-by-side")
                variations = gr.Radio([], label="Open a variation", visible=False, elem_id="studio-variation")
                with gr.Accordion("Compare with another video", open=False):
                    other = gr.Dropdown([], label="Behind the slider", elem_id="studio-other")
                    slider = gr.HTML(elem_id="studio-compared")
                with gr.Accordion("Make it elsewhere", open=False):
                    command = gr.Code(label="Command line", language="shell", wrap_lines=True, elem_id="studio-command")
                    python = gr.Code(label="Python", language="python", wrap_lines=True)
                    curl = gr.Code(label="curl", language="shell", wrap_lines=True)
        gr.Markdown("### History")
        gallery = gr.Gallery(
            show_label=False, columns=8, height=200, allow_preview=False, buttons=[], elem_id="studio-history"
        )
        names, opened = gr.State([]), gr.State("")
        view = [video, errors, after, mp4, gif, last, command, python, curl, opened]
        shelf = [gallery, names, other]
        together = [beside, variations]

        def shown_entry(entry: HistoryEntry | None, chosen: list[str]) -> list[Any]:
            if entry is None:
                return [None, "", gr.update(visible=False), None, None, None, "", "", "", ""]
            made = studio().files(entry)
            picture = studio().overlaid(entry, *(name in chosen for name in SHOWN))
            downloads = [str(entry.video), str(made.gif), str(made.last_frame)]
            facts = entry.facts
            recipes = facts.get("recipes", ["", "", ""])  # an interrupted measurement leaves an entry without them
            return [picture, facts.get("errors", ""), gr.update(visible=True), *downloads, *recipes, entry.name]

        def shelved() -> list[Any]:
            entries = history.entries()
            pictures = [(str(entry.folder / "thumbnail.jpg"), entry.title) for entry in entries]
            choices = [(entry.title_with_seed, entry.name) for entry in entries]
            return [pictures, [entry.name for entry in entries], gr.update(choices=choices, value=None)]

        def side_by_side(chosen: list[str], made: list[str]) -> list[Any]:
            videos = studio().compared(made, *(name in chosen for name in SHOWN))
            shown = len(made) > 1
            choices = [(title, name) for name, (_, title) in videos.items()]
            return [
                gr.update(value=playing_together([*videos.values()]), visible=shown),
                gr.update(choices=choices, value=made[-1], visible=shown),
            ]

        def make(request: gr.Request, text: str, chosen: list[str], *values: Any) -> Iterator[list[Any]]:
            quiet = [gr.skip()] * (len(view) + len(shelf) + len(together))
            made: list[str] = []
            preview = None
            yield [progress_bar("Getting ready", 0.0), gr.update(interactive=True), *quiet]
            try:
                for update in studio().make(str(request.session_hash), text, Form(*values)):
                    preview = None if update.entry or not update.running else update.preview or preview
                    bar = progress_bar(update.text, update.share, preview=preview)
                    fresh = quiet
                    if update.entry is not None:
                        made.append(update.entry.name)
                        fresh = [*shown_entry(update.entry, chosen), *shelved(), *side_by_side(chosen, made)]
                    yield [bar, gr.update(interactive=update.running), *fresh]
            except (ValueError, OSError) as error:
                yield [progress_bar(str(error), None, bad=True), gr.update(interactive=False), *quiet]

        def stop(request: gr.Request) -> None:
            studio().cancel(str(request.session_hash))

        def pick(event: gr.SelectData, known: list[str], chosen: list[str]) -> list[Any]:
            index = int(event.index)
            return reopen(known[index] if index < len(known) else "", chosen)

        def reopen(name: str, chosen: list[str]) -> list[Any]:
            entry = history.find(name)
            fields = [gr.skip()] * len(form)
            if entry is not None and "form" in entry.facts:
                fields = [*Form(*entry.facts["form"])]
            return [gr.skip() if entry is None else entry.drawing(), *fields, *shown_entry(entry, chosen)]

        def compared(name: str, behind: str) -> str:
            sides = [(studio().overlay_of(each, False, False), history.find(each)) for each in (name, behind)]
            return video_slider(*((path, entry.title_with_seed if entry else "") for path, entry in sides))

        def remove(name: str, chosen: list[str]) -> list[Any]:
            history.remove(name)
            return [*shown_entry(None, chosen), *shelved()]

        def go_on(name: str) -> list[Any]:
            return told(lambda: (studio().onward(name), "The strokes go on from the last frame."))

        making: Any = {"concurrency_limit": 1, "concurrency_id": "sampler", "show_progress": "hidden"}
        go.click(make, [editor, layers, *form], [progress, cancel, *view, *shelf, *together], **making)
        cancel.click(stop, None, None, queue=False)
        examples.select(_pick_example, None, editor)
        sources.connect(editor, progress)
        gallery.select(pick, [names, layers], [editor, *form, *view])
        variations.input(reopen, [variations, layers], [editor, *form, *view])
        other.input(compared, [opened, other], slider)
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

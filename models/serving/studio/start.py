"""The command `image-conductor studio`."""

import argparse
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from models.serving.studio.late import import_heavy
from models.serving.studio.quick_import import import_gradio

if TYPE_CHECKING:
    from models.serving.studio.work import Studio

MEGABYTE = 2**20
MAX_UPLOAD = 64 * MEGABYTE
PATIENCE = 10.0  # seconds until a model is loaded that nobody has asked for yet


def run_studio(options: argparse.Namespace) -> None:
    """Serve the page until it is interrupted. The model is loaded from the first visit on, or after `PATIENCE`."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import_gradio()

    from models.serving.studio.app import make_page
    from models.serving.studio.clips import ClipShelf
    from models.serving.studio.history import History
    from models.serving.studio.motion import StrokeSources
    from models.serving.studio.sampler import LocalSampler, RemoteSampler, Sampler
    from models.serving.studio.widgets import STYLE, page_theme

    sampler: Sampler = LocalSampler(options.model, _loader(options))
    if options.endpoint:
        sampler = RemoteSampler(options.endpoint, import_heavy)
    history = History(options.history.resolve(), options.history_mb * MEGABYTE)
    made = Path(tempfile.mkdtemp(prefix="image-conductor-studio-"))
    opening = threading.Lock()

    @cache
    def make_studio() -> "Studio":
        import_heavy()
        from models.serving.studio.work import Studio

        return Studio(sampler, history, made, options.model, options.endpoint or "http://127.0.0.1:5001")

    def studio() -> "Studio":
        with opening:
            return make_studio()

    shelf = ClipShelf(options.clips)
    page = make_page(sampler, history, studio, lambda: StrokeSources(shelf, made))
    page.queue(max_size=64, default_concurrency_limit=4)
    waiting = threading.Timer(PATIENCE, sampler.begin)
    waiting.daemon = True
    waiting.start()
    page.launch(
        server_name=options.host,
        server_port=options.port,
        quiet=False,
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[str(history.folder), str(made)],
        theme=page_theme(),
        css=STYLE.read_text(encoding="utf-8"),
    )


def _loader(options: argparse.Namespace) -> Callable[[Callable[[str, float], None]], object]:
    def load(tell: Callable[[str, float], None]) -> object:
        import_heavy()
        from models.serving.load import load_model, place

        tell("weights", 0.4)
        pipeline = load_model(options.model)
        tell("the device", 0.9)
        return place(pipeline)

    return load


def add_studio_options(studio: argparse.ArgumentParser, default_model: str) -> None:
    """The options of `studio`."""
    studio.set_defaults(run=run_studio)
    where = studio.add_mutually_exclusive_group()
    where.add_argument(
        "--model", default=default_model, help="saved model, or models:/name@alias; default: %(default)s"
    )
    where.add_argument("--endpoint", metavar="URL", help="a running scoring server that makes the videos")
    studio.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    studio.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    studio.add_argument("--history", type=Path, default=Path("studio_history"), help="folder; default: %(default)s")
    studio.add_argument("--history-mb", type=int, default=1024, help="size that it may grow to; default: %(default)s")
    studio.add_argument(
        "--clips",
        type=Path,
        default=Path("data/clips/mixed/videos"),
        help="folder of videos, or of the pipeline's shards, whose motion the page offers; default: %(default)s",
    )

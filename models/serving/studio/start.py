"""The command `image-conductor studio`."""

import argparse
import os
from pathlib import Path

from models.errors import UserError

MEGABYTE = 2**20
MAX_UPLOAD = 64 * MEGABYTE


def run_studio(options: argparse.Namespace) -> None:
    """Serve the page until it is interrupted."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("studio: gradio is missing; install it with: pip install 'image-conductor[studio]'") from None

    from models.serving.studio.app import make_page
    from models.serving.studio.history import History
    from models.serving.studio.sampler import LocalSampler, RemoteSampler, Sampler
    from models.serving.studio.widgets import STYLE, page_theme
    from models.serving.studio.work import Studio

    def load() -> object:
        from models.serving.load import load_model, place

        return place(load_model(options.model))

    sampler: Sampler = RemoteSampler(options.endpoint) if options.endpoint else LocalSampler(options.model, load)
    history = History(options.history.resolve(), options.history_mb * MEGABYTE)
    studio = Studio(sampler, history, options.model, options.endpoint or "http://127.0.0.1:5001")
    page = make_page(studio)
    page.queue(max_size=64, default_concurrency_limit=4)
    page.launch(
        server_name=options.host,
        server_port=options.port,
        quiet=False,
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[str(history.folder), str(studio.made)],
        theme=page_theme(),
        css=STYLE,
    )


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

"""What the page does, without the page: videos with progress and cancel, their files, going on from the last frame."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from models.drawing import draw_tracks
from models.errors import UserError
from models.serving.make_video import MadeVideo, Wish
from models.serving.remake import gif_of_mp4
from models.serving.studio.drawing import Drawing, continued, read_drawing
from models.serving.studio.form import Form
from models.serving.studio.history import History, HistoryEntry
from models.serving.studio.measured import as_plain, errors_as_markdown, measure_video
from models.serving.studio.recipe import as_command, as_curl, as_python, as_request
from models.serving.studio.sampler import Cancelled, Sampler
from models.serving.studio.wish import make_wish
from models.strokes.stroke import on_canvas
from models.strokes.trajectories import load_trajectories
from models.video.read import read_info
from models.video.write import encode_mp4

POLL = 0.1  # seconds between two looks at a sampler
PREVIEW_EVERY = 0.5  # seconds between two previews, at least
SHOWN_WIDTH = 480  # pixels that a video with strokes drawn over it has at least


class Update(NamedTuple):
    """What the page shows: a line, the share that is done (None: unknown), whether work goes on, a finished entry, and
    a JPEG of the middle frame as it is by now."""

    text: str
    share: float | None = None
    running: bool = True
    entry: HistoryEntry | None = None
    preview: bytes | None = None


@dataclass(frozen=True)
class ResultFiles:
    """What can be downloaded beside the video."""

    gif: Path
    last_frame: Path


class Studio:
    """One sampler for all sessions, and the history of all."""

    def __init__(self, sampler: Sampler, history: History, made: Path, model: str, endpoint: str):
        """`made` is a folder for files that can be made again from the history."""
        self._sampler, self.history = sampler, history
        self._model, self._endpoint = model, endpoint
        self._cancelled: dict[str, threading.Event] = {}
        self._made = made

    def cancel(self, session: str) -> None:
        """Stop a session's video between two steps of the sampler."""
        if session in self._cancelled:
            self._cancelled[session].set()

    def make(self, session: str, text: str, form: Form) -> Iterator[Update]:
        """Make as many videos as the form asks for, one after another, with seeds that count up.

        Each finished video comes as the entry of an update. The last update says that it is done or cancelled.

        Raises:
            UserError: the drawing or a field of the form is refused, or no video could be made.
        """
        drawing = read_drawing(text)
        first = make_wish(drawing, form)
        stop = self._cancelled[session] = threading.Event()
        count = int(form.variations)  # a slider may send 3.0
        for number in range(count):
            wish = replace(first, seed=(first.seed or 0) + number)
            which = f"Video {number + 1} of {count}. " if count > 1 else ""
            made: list[MadeVideo] = []
            for update in self._sampled(drawing, wish, stop, made):
                yield update._replace(text=which + update.text)
            if not made:
                yield Update("Cancelled. The drawing is as it was.", 0.0, running=False)
                return
            last = number + 1 == count
            yield Update(f"{which}Measuring how well the strokes were followed", 1.0, running=not last)
            entry = self._keep(drawing, wish, made[0], form)
            yield Update(f"{which}Done. Seed {wish.seed}.", 1.0, running=not last, entry=entry)

    def _sampled(self, drawing: Drawing, wish: Wish, stop: threading.Event, made: list[MadeVideo]) -> Iterator[Update]:
        """Updates while a video is made, which comes into `made`; nothing comes if it was cancelled."""
        told: queue.Queue[tuple[int, int, bytes | None]] = queue.Queue()
        shown = time.monotonic()

        def on_step(done: int, total: int, picture: Callable[[], bytes] | None) -> None:
            nonlocal shown
            if stop.is_set():
                raise Cancelled
            due = picture is not None and done < total and time.monotonic() - shown >= PREVIEW_EVERY
            told.put((done, total, picture() if picture is not None and due else None))
            shown = time.monotonic() if due else shown

        problem: list[BaseException] = []

        def work() -> None:
            try:
                made.append(self._sampler.sample(wish, as_request(drawing, wish), on_step))
            except Cancelled:
                pass
            except BaseException as error:
                problem.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield Update("Waiting for the model")
        while thread.is_alive() or not told.empty():
            try:
                done, total, picture = told.get(timeout=POLL)
            except queue.Empty:
                continue
            stopping = "Cancelling after this step. " if stop.is_set() else ""
            line = f"Step {done} of {total}" if total else "The server is working"
            yield Update(stopping + line, done / total if total else None, preview=picture)
        if problem:
            error = problem[0]
            raise (
                error
                if isinstance(error, ValueError)
                else UserError(f"no video: {type(error).__name__}; the server's log says more")
            ) from error

    def _keep(self, drawing: Drawing, wish: Wish, video: MadeVideo, form: Form) -> HistoryEntry:
        facts = {"prompt": wish.prompt, "mode": wish.mode, "seed": video.seed}
        entry = self.history.add(drawing, video, as_request(drawing, wish), wish.keyframes, facts)
        kept = [str(entry.keyframe(frame)) for frame, _ in wish.keyframes] or None
        facts["form"] = [*form._replace(seed=video.seed, keyframes=kept, variations=1)]
        measured = measure_video(entry.frames(), drawing.trajectories, wish.mode)
        np.savez(entry.folder / "tracks.npz", wanted=measured.wanted, found=measured.found)
        notes = [f"Cropped to the model's frame: {video.cropped}."] if video.cropped else []
        notes += [f"Note: {note}." for note in video.notes]
        facts["errors"] = "\n\n".join([errors_as_markdown(measured.errors), *map(as_plain, notes)])
        facts["recipes"] = [
            as_command(wish, entry.folder, entry.picture, self._model),
            as_python(wish, entry.folder, entry.picture, self._model),
            as_curl(wish, entry.folder, self._endpoint),
        ]
        return self.history.rewrite(entry, facts)

    def files(self, entry: HistoryEntry) -> ResultFiles:
        """The GIF and the last frame of a video."""
        found = ResultFiles(self._made / f"{entry.name}.gif", self._made / f"{entry.name}-last.png")
        if not found.last_frame.is_file():
            frames = entry.frames()
            found.gif.write_bytes(gif_of_mp4(entry.video))
            Image.fromarray(frames[-1]).save(found.last_frame)
        return found

    def overlaid(self, entry: HistoryEntry, wanted: bool, tracked: bool) -> str:
        """The video with the wanted strokes, the tracked points, both, or as it is."""
        layers = [name for name, on in (("wanted", wanted), ("found", tracked)) if on]
        tracks = entry.folder / "tracks.npz"
        if not layers or not tracks.is_file():
            return str(entry.video)
        path = self._made / f"{entry.name}-{'-'.join(layers)}.mp4"
        if not path.is_file():
            frames = entry.frames()
            scale = max(2, -(-SHOWN_WIDTH // frames.shape[2]))
            scale += scale * frames.shape[1] * frames.shape[2] % 2
            with np.load(tracks) as arrays:
                drawn = np.concatenate([arrays[name] for name in layers], 1)
            path.write_bytes(encode_mp4(draw_tracks(frames, drawn, scale), read_info(entry.video).fps))
        return str(path)

    def compared(self, names: Sequence[str], wanted: bool, tracked: bool) -> dict[str, tuple[str, str]]:
        """The videos of these entries as `overlaid`, with their seeds, by name; entries that are gone are left out."""
        found = {name: entry for name in names if (entry := self.history.find(name))}
        return {
            name: (self.overlaid(entry, wanted, tracked), f"seed {entry.facts['seed']}")
            for name, entry in found.items()
        }

    def overlay_of(self, name: str, wanted: bool, tracked: bool) -> str | None:
        """As `overlaid`, of the entry of a name; None if it is gone."""
        entry = self.history.find(name)
        return self.overlaid(entry, wanted, tracked) if entry else None

    def onward(self, name: str) -> str:
        """The editor's value for going on from an entry's last frame. Raises UserError if the entry is gone."""
        entry = self.history.find(name)
        if entry is None:
            raise UserError("history: this video is gone")
        with Image.open(self.files(entry).last_frame) as picture:
            last = picture.convert("RGB")
        drawn = on_canvas(load_trajectories(entry.folder / "strokes.json"), last.size)
        return continued(last, drawn)

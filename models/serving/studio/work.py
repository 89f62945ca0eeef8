"""What the page does, without the page: videos with progress and cancel, their files, going on from the last frame."""

import queue
import secrets
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image

from models.drawing import draw_tracks
from models.errors import UserError
from models.modes import MODES, Mode
from models.sampling.settings import SamplingOptions
from models.serving.make_video import MadeVideo, Wish
from models.serving.studio.drawing import Drawing, continued, read_drawing
from models.serving.studio.history import History, HistoryEntry
from models.serving.studio.measured import errors_as_markdown, measure_video
from models.serving.studio.recipe import as_command, as_curl, as_python, as_request
from models.serving.studio.sampler import Cancelled, Sampler
from models.strokes.stroke import on_canvas
from models.strokes.trajectories import load_trajectories
from models.video.read import read_info
from models.video.write import encode_gif, encode_mp4

SOLVER_OF_MODEL = "of the model"
PLAIN, EQ_5 = "plain guidance", "camera-free guidance"
POLL = 0.1  # seconds between two looks at a sampler
SHOWN_WIDTH = 480  # pixels that a video with strokes drawn over it has at least
MAX_PROMPT = 2000


class Form(NamedTuple):
    """The page's form, field by field; None and "of the model" leave a setting to the model."""

    prompt: str
    negative_prompt: str
    mode: str
    seed: float | None
    locked: bool
    steps: float | None
    solver: str
    guidance: float | None
    trajectory_guidance: str
    l_trajs: float | None


class Update(NamedTuple):
    """What the page shows: a line, the share that is done (None: unknown), whether work goes on, the finished entry."""

    text: str
    share: float | None = None
    running: bool = True
    entry: HistoryEntry | None = None


@dataclass(frozen=True)
class ResultFiles:
    """What can be downloaded beside the video."""

    gif: Path
    last_frame: Path


class Studio:
    """One sampler for all sessions, and the history of all."""

    def __init__(self, sampler: Sampler, history: History, model: str, endpoint: str):
        self._sampler, self.history = sampler, history
        self._model, self._endpoint = model, endpoint
        self._cancelled: dict[str, threading.Event] = {}
        self._made = Path(tempfile.mkdtemp(prefix="image-conductor-studio-"))

    @property
    def made(self) -> Path:
        """The folder of files that can be made again from the history."""
        return self._made

    def status(self) -> str:
        return self._sampler.status()

    def cancel(self, session: str) -> None:
        """Stop a session's video between two steps of the sampler."""
        if session in self._cancelled:
            self._cancelled[session].set()

    def make(self, session: str, text: str, form: Form) -> Iterator[Update]:
        """Make a video; the last update has the entry, or says that it was cancelled.

        Raises:
            UserError: the drawing or a field of the form is refused, or no video could be made.
        """
        drawing = read_drawing(text)
        wish = make_wish(drawing, form)
        request = as_request(drawing, wish)
        stop = self._cancelled[session] = threading.Event()
        told: queue.Queue[tuple[int, int]] = queue.Queue()

        def on_step(done: int, total: int) -> None:
            told.put((done, total))
            if stop.is_set():
                raise Cancelled

        result: list[MadeVideo | BaseException] = []

        def work() -> None:
            try:
                result.append(self._sampler.sample(wish, request, on_step))
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield Update("Waiting for the model")
        while thread.is_alive() or not told.empty():
            try:
                done, total = told.get(timeout=POLL)
            except queue.Empty:
                continue
            stopping = "Cancelling after this step. " if stop.is_set() else ""
            line = f"Step {done} of {total}" if total else "The server is working"
            yield Update(stopping + line, done / total if total else None)
        outcome = result[0]
        if isinstance(outcome, Cancelled):
            yield Update("Cancelled. The drawing is as it was.", 0.0, running=False)
            return
        if isinstance(outcome, BaseException):
            raise (
                outcome
                if isinstance(outcome, ValueError)
                else UserError(f"no video: {type(outcome).__name__}; the server's log says more")
            ) from outcome
        yield Update("Measuring how well the strokes were followed", 1.0, running=False)
        yield Update(f"Done. Seed {outcome.seed}.", 1.0, running=False, entry=self._keep(drawing, wish, outcome, form))

    def _keep(self, drawing: Drawing, wish: Wish, video: MadeVideo, form: Form) -> HistoryEntry:
        facts = {"prompt": wish.prompt, "mode": wish.mode, "seed": video.seed}
        facts["form"] = [*form._replace(seed=video.seed)]
        entry = self.history.add(drawing, video, as_request(drawing, wish), facts)
        measured = measure_video(entry.frames(), drawing.trajectories, wish.mode)
        np.savez(entry.folder / "tracks.npz", wanted=measured.wanted, found=measured.found)
        notes = [f"Cropped to the model's frame: {video.cropped}."] if video.cropped else []
        notes += [f"Note: {note}." for note in video.notes]
        facts["errors"] = "\n\n".join([errors_as_markdown(measured.errors), *notes])
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
            found.gif.write_bytes(encode_gif(frames, read_info(entry.video).fps))
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


def make_wish(drawing: Drawing, form: Form) -> Wish:
    """The form as what the sampler is asked for.

    Raises:
        UserError: a field is out of range; the message names it.
    """
    mode = cast(Mode, form.mode) if form.mode in MODES else drawing.mode
    drawing.trajectories.strokes_of(mode)
    for name, text in (("prompt", form.prompt), ("negative prompt", form.negative_prompt)):
        if len(text or "") > MAX_PROMPT:
            raise UserError(f"{name}: at most {MAX_PROMPT} characters, got {len(text)}")
    seed = secrets.randbelow(2**31)
    if form.locked:
        if form.seed is None or not 0 <= form.seed < 2**31 or form.seed != int(form.seed):
            raise UserError("seed: must be a whole number from 0 to 2147483647, or unlocked")
        seed = int(form.seed)
    options = SamplingOptions()
    if form.steps:
        if not 1 <= form.steps <= 200:
            raise UserError(f"steps: must be from 1 to 200, got {form.steps:g}")
        options["num_inference_steps"] = int(form.steps)
    if form.guidance:
        if not 1 <= form.guidance <= 50:
            raise UserError(f"guidance: must be from 1 to 50, got {form.guidance:g}")
        options["guidance_scale"] = float(form.guidance)
    if form.solver != SOLVER_OF_MODEL:
        options["solver"] = cast(Any, form.solver)
    if form.trajectory_guidance == PLAIN:
        options["trajectory_guidance_scale"] = None
    elif form.trajectory_guidance == EQ_5:
        if form.l_trajs is None or not 0 <= form.l_trajs <= 50:
            raise UserError("l_trajs: must be from 0 to 50")
        options["trajectory_guidance_scale"] = float(form.l_trajs)
    negative = form.negative_prompt or ""
    return Wish(
        drawing.picture,
        drawing.trajectories,
        mode,
        form.prompt or "",
        negative,
        seed,
        options=options,
        notes=drawing.notes,
    )

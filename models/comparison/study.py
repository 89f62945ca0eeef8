"""The human preference study (Sec 3, App C.2): a local page that shows two methods' videos of one stroke.

image-conductor study --videos out/ours out/other --trajectories strokes --votes votes.sqlite

Each participant sees every pair of methods for every stroke once. The seed and the participant's number decide order
and sides. The page and its addresses never name a method. Each vote is written at once as a row of one SQLite table.
"""

import io
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import flask
import numpy as np
from PIL import Image
from werkzeug.wrappers import Response

from models.comparison.preferences import QUESTIONS, Vote
from models.comparison.videos import Item, find_items
from models.drawing import draw_tracks
from models.geometry import Size
from models.strokes.stroke import AUTHORS_CANVAS, stroke_tracks
from models.strokes.trajectories import load_trajectories
from models.video.read import read_video

SIDES = ("left", "right")
STROKE_WIDTH = 384  # pixels; smallest width of the picture with the strokes
TABLES = """
CREATE TABLE IF NOT EXISTS study (seed INTEGER NOT NULL, methods TEXT NOT NULL, items TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS participants (id INTEGER PRIMARY KEY AUTOINCREMENT, began TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS votes (
    participant INTEGER NOT NULL REFERENCES participants (id), trial INTEGER NOT NULL, item TEXT NOT NULL,
    question TEXT NOT NULL, winner TEXT NOT NULL, loser TEXT NOT NULL, winner_side TEXT NOT NULL,
    given TEXT DEFAULT CURRENT_TIMESTAMP, UNIQUE (participant, trial, question)
);
"""


class Trial(NamedTuple):
    """One stroke and the two methods whose videos are shown for it."""

    item: Item
    left: str
    right: str


@dataclass(frozen=True)
class Study:
    """The comparison of a study.

    seed: decides sides and order. canvas: width and height of the picture that strokes belong to, for formats that do
    not say it.
    """

    items: tuple[Item, ...]
    methods: tuple[str, ...]
    seed: int
    canvas: Size = AUTHORS_CANVAS

    @classmethod
    def of(cls, videos: Sequence[Path], trajectories: Path, seed: int, canvas: Size = AUTHORS_CANVAS) -> "Study":
        """Find the videos and their strokes. Raises ValueError if they do not match, or are of one method only."""
        if len(videos) < 2:
            raise ValueError("--videos: a study compares two methods or more; give a folder for each")
        items = tuple(find_items(videos, trajectories))
        return cls(items, tuple(sorted(items[0].videos)), seed, canvas)

    def trials(self, participant: int) -> list[Trial]:
        """The trials of a participant, in order."""
        rng = np.random.default_rng([self.seed, participant])
        pairs = [(item, *pair) for item in self.items for pair in combinations(self.methods, 2)]
        trials = []
        for index in rng.permutation(len(pairs)):
            item, one, other = pairs[index]
            trials.append(Trial(item, other, one) if rng.random() < 0.5 else Trial(item, one, other))
        return trials


def make_app(study: Study, votes: Path) -> flask.Flask:
    """The page as a WSGI application that writes to the SQLite file `votes`.

    Raises:
        ValueError: the file is no database, or holds the votes of another study.
    """
    _open_votes(study, votes)
    app = flask.Flask(__name__, template_folder=str(Path(__file__).parent))

    def trial_or_404(participant: int, number: int) -> Trial:
        trials = study.trials(participant)
        if not 0 <= number < len(trials):
            flask.abort(404)
        return trials[number]

    @app.get("/")
    def begin() -> str:
        return flask.render_template("study.html.j2", page="begin", questions=QUESTIONS)

    @app.post("/participants")
    def participate() -> Response:
        with closing(sqlite3.connect(votes)) as database, database:
            participant = database.execute("INSERT INTO participants DEFAULT VALUES").lastrowid
        return flask.redirect(f"/participants/{participant}", 303)

    @app.get("/participants/<int:participant>")
    def ask(participant: int) -> str:
        with closing(sqlite3.connect(votes)) as database:
            known = database.execute("SELECT 1 FROM participants WHERE id = ?", [participant]).fetchone()
            answered = {
                row[0] for row in database.execute("SELECT trial FROM votes WHERE participant = ?", [participant])
            }
        if not known:
            flask.abort(404)
        trials = study.trials(participant)
        number = next((number for number in range(len(trials)) if number not in answered), None)
        if number is None:
            return flask.render_template("study.html.j2", page="end", total=len(trials))
        shown = {side: trials[number].item.videos[getattr(trials[number], side)] for side in SIDES}
        return flask.render_template(
            "study.html.j2",
            page="trial",
            questions=QUESTIONS,
            address=f"/participants/{participant}/trials/{number}",
            number=len(answered) + 1,
            total=len(trials),
            gifs={side: path.suffix.lower() == ".gif" for side, path in shown.items()},
        )

    @app.post("/participants/<int:participant>/trials/<int:number>")
    def vote(participant: int, number: int) -> Response:
        trial = trial_or_404(participant, number)
        answers = {question: flask.request.form.get(question) for question in QUESTIONS}
        if not all(answer in SIDES for answer in answers.values()):
            flask.abort(400, "every question needs an answer, left or right")
        rows = []
        for question, side in answers.items():
            winner, loser = (trial.left, trial.right) if side == "left" else (trial.right, trial.left)
            rows.append((participant, number, trial.item.name, question, winner, loser, side))
        try:
            with closing(sqlite3.connect(votes)) as database, database:
                database.execute("PRAGMA foreign_keys = ON")
                database.executemany(
                    "INSERT INTO votes (participant, trial, item, question, winner, loser, winner_side) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
        except sqlite3.IntegrityError:
            flask.abort(409, "this pair has been answered, or there is no such participant")
        return flask.redirect(f"/participants/{participant}", 303)

    @app.get("/participants/<int:participant>/trials/<int:number>/<any(left, right):side>")
    def video(participant: int, number: int, side: str) -> Response:
        trial = trial_or_404(participant, number)
        path = trial.item.videos[getattr(trial, side)]
        return flask.send_file(path.resolve(), conditional=True)

    @app.get("/participants/<int:participant>/trials/<int:number>/stroke")
    def stroke(participant: int, number: int) -> Response:
        trial = trial_or_404(participant, number)
        return flask.send_file(io.BytesIO(stroke_picture(trial.item, study.canvas)), "image/png")

    return app


def stroke_picture(item: Item, canvas: Size) -> bytes:
    """A PNG of the first frame with the strokes drawn over it."""
    frames, _ = read_video(next(iter(item.videos.values())))
    drawn = load_trajectories(item.trajectories, canvas)
    height, width = frames.shape[1:3]
    strokes = [*drawn.strokes, *drawn.camera_strokes]
    tracks, _ = stroke_tracks(strokes, drawn.canvas, (width, height), len(frames))
    scale = max(1, -(-STROKE_WIDTH // width))
    still = np.repeat(frames[:1], len(tracks), 0)
    buffer = io.BytesIO()
    Image.fromarray(draw_tracks(still, tracks, scale)[-1]).save(buffer, "PNG")
    return buffer.getvalue()


def read_votes(path: Path) -> list[Vote]:
    """Every vote of a study's file. Raises ValueError if there is no such file or it is no study's."""
    if not path.is_file():
        raise ValueError(f"--votes: {path}: no such file; `image-conductor study` makes it")
    try:
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute("SELECT participant, question, winner, loser FROM votes ORDER BY rowid").fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"--votes: {path}: not the votes of a study ({error})") from None
    return [Vote(*row) for row in rows]


def _open_votes(study: Study, path: Path) -> None:
    """Make the tables, or check that they are this study's. With another seed, votes would belong to other trials."""
    wanted = (study.seed, "\n".join(study.methods), "\n".join(item.name for item in study.items))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(TABLES)
            found = database.execute("SELECT seed, methods, items FROM study").fetchone()
            if found is None:
                database.execute("INSERT INTO study VALUES (?, ?, ?)", wanted)
    except sqlite3.Error as error:
        raise ValueError(f"--votes: {path}: not a database of votes ({error})") from None
    if found is not None and found != wanted:
        differ = ", ".join(n for n, a, b in zip(("seed", "methods", "videos"), found, wanted, strict=True) if a != b)
        raise ValueError(f"--votes: {path}: holds the votes of another study (other {differ}); give another file")

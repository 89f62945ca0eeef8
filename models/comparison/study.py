"""The human preference study (Sec 3, App C.2): a local page that shows two methods' videos of one stroke.

image-conductor study --videos out/ours out/other --trajectories strokes --votes votes.sqlite

Each participant sees every pair of methods for every stroke once. The seed and the participant's number decide order
and sides. The page and its addresses never name a method. Each vote is written at once as a row of one SQLite table.

A participant's address holds a random key, so nobody can guess the address of another one. Each form carries a token
made of that key and of a secret of the study, so no other page can send it. Addresses of other hosts are refused, see
`make_app`.
"""

import hmac
import io
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

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
from models.video.read import UnreadableVideo, read_video

SIDES = ("left", "right")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
EVERY_ADDRESS = ("0.0.0.0", "::")
MOST_BYTES = 16384  # of a request; a vote has 300
SECONDS_TO_WRITE = 30  # that a vote waits while other votes are written
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STROKE_WIDTH = 384  # pixels; smallest width of the picture with the strokes
TABLES = """
CREATE TABLE IF NOT EXISTS study (seed INTEGER NOT NULL, methods TEXT NOT NULL, items TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secret (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS participants (
    id INTEGER PRIMARY KEY AUTOINCREMENT, began TEXT DEFAULT CURRENT_TIMESTAMP, key TEXT UNIQUE
);
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


def make_app(study: Study, votes: Path, host: str = LOOPBACK[1]) -> flask.Flask:
    """The page as a WSGI application that writes to the SQLite file `votes`.

    Args:
        host: Where the page is served. Requests must name it, or this machine, as their host. An address that stands
            for every address of a machine allows any name.

    Raises:
        ValueError: the file is no database, or holds the votes of another study.
    """
    secret = _open_votes(study, votes).encode()
    app = flask.Flask(__name__, template_folder=str(Path(__file__).parent))
    app.jinja_env.autoescape = True
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.config["TRUSTED_HOSTS"] = None if host in EVERY_ADDRESS else [*LOOPBACK, f"[{host}]" if ":" in host else host]
    items = {item.name: item for item in study.items}
    picture_of = cache(lambda name: stroke_picture(items[name], study.canvas))

    def page(**values: Any) -> str:
        return flask.render_template("study.html.j2", questions=QUESTIONS, **values)

    def token(of: str) -> str:
        return hmac.new(secret, of.encode(), "sha256").hexdigest()

    def check_token(of: str) -> None:
        if not hmac.compare_digest(flask.request.form.get("token", "").encode(), token(of).encode()):
            flask.abort(403, "this form is not of this study's page; load the page again")

    def participant_or_404(key: str) -> int:
        with closing(_connect(votes)) as database:
            found = database.execute("SELECT id FROM participants WHERE key = ?", [key]).fetchone()
        return int(found[0]) if found else flask.abort(404)

    def trial_or_404(key: str, number: int) -> Trial:
        trials = study.trials(participant_or_404(key))
        if not 0 <= number < len(trials):
            flask.abort(404)
        return trials[number]

    @app.before_request
    def trust_host() -> None:
        flask.request.host  # noqa: B018  reading it refuses a host that is not trusted

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(OSError)
    @app.errorhandler(UnreadableVideo)
    def gone(error: Exception) -> tuple[str, int]:
        app.logger.warning("%s: %s", flask.request.path, error)
        return "This video cannot be read any more.", 404

    @app.errorhandler(sqlite3.OperationalError)
    def busy(error: Exception) -> tuple[str, int, dict[str, str]]:
        app.logger.warning("%s: %s", votes, error)
        return "The vote could not be written. Try again.", 503, {"Retry-After": "5"}

    @app.get("/")
    def begin() -> str:
        return page(page="begin", token=token(""))

    @app.post("/participants")
    def participate() -> Response:
        check_token("")
        key = secrets.token_urlsafe(16)
        with closing(_connect(votes)) as database, database:
            database.execute("INSERT INTO participants (key) VALUES (?)", [key])
        return flask.redirect(f"/participants/{key}", 303)

    @app.get("/participants/<key>")
    def ask(key: str) -> str:
        participant = participant_or_404(key)
        with closing(_connect(votes)) as database:
            answered = {
                row[0] for row in database.execute("SELECT trial FROM votes WHERE participant = ?", [participant])
            }
        trials = study.trials(participant)
        number = next((number for number in range(len(trials)) if number not in answered), None)
        if number is None:
            return page(page="end", total=len(trials))
        shown = {side: trials[number].item.videos[getattr(trials[number], side)] for side in SIDES}
        return page(
            page="trial",
            token=token(key),
            address=f"/participants/{key}/trials/{number}",
            number=len(answered) + 1,
            total=len(trials),
            gifs={side: path.suffix.lower() == ".gif" for side, path in shown.items()},
        )

    @app.post("/participants/<key>/trials/<int:number>")
    def vote(key: str, number: int) -> Response:
        check_token(key)
        participant, trial = participant_or_404(key), trial_or_404(key, number)
        answers = {question: flask.request.form.get(question) for question in QUESTIONS}
        if not all(answer in SIDES for answer in answers.values()):
            flask.abort(400, "every question needs an answer, left or right")
        rows = []
        for question, side in answers.items():
            winner, loser = (trial.left, trial.right) if side == "left" else (trial.right, trial.left)
            rows.append((participant, number, trial.item.name, question, winner, loser, side))
        try:
            with closing(_connect(votes)) as database, database:
                database.executemany(
                    "INSERT INTO votes (participant, trial, item, question, winner, loser, winner_side) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
        except sqlite3.IntegrityError:
            flask.abort(409, "this pair has been answered")
        return flask.redirect(f"/participants/{key}", 303)

    @app.get("/participants/<key>/trials/<int:number>/<any(left, right):side>")
    def video(key: str, number: int, side: str) -> Response:
        trial = trial_or_404(key, number)
        path = trial.item.videos[getattr(trial, side)]
        return flask.send_file(path.resolve(), download_name=f"{side}{path.suffix.lower()}", conditional=True)

    @app.get("/participants/<key>/trials/<int:number>/stroke")
    def stroke(key: str, number: int) -> Response:
        return flask.send_file(io.BytesIO(picture_of(trial_or_404(key, number).item.name)), "image/png")

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


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=SECONDS_TO_WRITE)
    database.execute("PRAGMA foreign_keys = ON")
    return database


def _open_votes(study: Study, path: Path) -> str:
    """Make the tables, or check that they are this study's, and return its secret.

    With another seed, votes would belong to other trials. Participants of a file that an older version made get no key:
    their votes stay, and whoever is not done begins anew.
    """
    wanted = (study.seed, "\n".join(study.methods), "\n".join(item.name for item in study.items))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path)) as database, database:
            database.execute("PRAGMA journal_mode = WAL")  # who votes does not wait for who reads
            database.executescript(TABLES)
            if "key" not in {row[1] for row in database.execute("PRAGMA table_info(participants)")}:
                database.execute("ALTER TABLE participants ADD COLUMN key TEXT")
            if database.execute("SELECT 1 FROM secret").fetchone() is None:
                database.execute("INSERT INTO secret VALUES (?)", [secrets.token_hex(32)])
            secret = str(database.execute("SELECT value FROM secret").fetchone()[0])
            found = database.execute("SELECT seed, methods, items FROM study").fetchone()
            if found is None:
                database.execute("INSERT INTO study VALUES (?, ?, ?)", wanted)
    except sqlite3.Error as error:
        raise ValueError(f"--votes: {path}: not a database of votes ({error})") from None
    if found is not None and found != wanted:
        differ = ", ".join(n for n, a, b in zip(("seed", "methods", "videos"), found, wanted, strict=True) if a != b)
        raise ValueError(f"--votes: {path}: holds the votes of another study (other {differ}); give another file")
    return secret

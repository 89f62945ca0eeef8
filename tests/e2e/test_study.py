"""The preference study: its page in Chromium, and the same by plain requests."""

import json
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from werkzeug.serving import make_server

from models.comparison.preferences import QUESTIONS
from models.comparison.study import Study, make_app, read_votes
from models.serving.cli import main
from models.video.write import encode_gif, encode_mp4
from tests.footage import moving_texture

METHODS, ITEMS = ("ours", "theirs", "third"), ("a", "b")


@pytest.fixture
def folders(tmp_path) -> Path:
    for number, method in enumerate(METHODS):
        for seed, item in enumerate(ITEMS):
            video = moving_texture(4, 96, 64, step=number, seed=seed)
            (tmp_path / method).mkdir(exist_ok=True)
            if method == "third":
                (tmp_path / method / f"{item}.gif").write_bytes(encode_gif(video, 8))
            else:
                (tmp_path / method / f"{item}.mp4").write_bytes(encode_mp4(video, 8))
    (tmp_path / "strokes").mkdir()
    for item in ITEMS:
        stroke = {"width": 96, "height": 64, "trajectories": [[[60, 30], [40, 30]]]}
        (tmp_path / "strokes" / f"{item}.json").write_text(json.dumps(stroke))
    return tmp_path


def study_of(folders: Path, seed: int = 0, methods: tuple[str, ...] = METHODS) -> Study:
    return Study.of([folders / method for method in methods], folders / "strokes", seed)


@pytest.fixture
def client(folders):
    return make_app(study_of(folders), folders / "votes.sqlite").test_client()


def token_on(client, address: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', client.get(address).get_data(as_text=True))
    return found[1] if found else ""


def answer(client, key: str, trial: int, **sides: str):
    answers = dict.fromkeys(QUESTIONS, "left") | sides | {"token": token_on(client, f"/participants/{key}")}
    return client.post(f"/participants/{key}/trials/{trial}", data=answers)


def begin(client) -> str:
    """The key of a new participant; the first one has number 1."""
    reply = client.post("/participants", data={"token": token_on(client, "/")})
    return reply.headers["Location"].rsplit("/", 1)[1]


def test_everyone_sees_every_pair_once_in_an_order_and_on_sides_of_their_own(folders):
    study = study_of(folders)
    seen = [study.trials(participant) for participant in range(40)]
    for trials in seen:
        pairs = [(trial.item.name, frozenset((trial.left, trial.right))) for trial in trials]
        assert len(set(pairs)) == len(pairs) == len(ITEMS) * 3
    assert study.trials(3) == seen[3]
    assert len({tuple(trial.item.name for trial in trials) for trials in seen}) > 5
    left = np.mean([trial.left < trial.right for trials in seen for trial in trials])
    assert 0.35 < left < 0.65
    assert study_of(folders, seed=1).trials(3) != seen[3]


def test_a_vote_is_stored_for_the_method_that_was_on_that_side(client, folders):
    participant = begin(client)
    trial = study_of(folders).trials(1)[0]
    assert answer(client, participant, 0, motion="right").status_code == 303
    votes = {vote.question: vote for vote in read_votes(folders / "votes.sqlite")}
    assert set(votes) == set(QUESTIONS)
    assert (votes["overall"].winner, votes["overall"].loser) == (trial.left, trial.right)
    assert (votes["motion"].winner, votes["motion"].loser) == (trial.right, trial.left)


def test_the_page_never_names_a_method(client):
    participant = begin(client)
    for number in range(6):
        page = client.get(f"/participants/{participant}")
        assert not any(method in page.get_data(as_text=True) for method in METHODS)
        for side in ("left", "right"):
            sent = client.get(f"/participants/{participant}/trials/{number}/{side}")
            assert sent.status_code == 200 and len(sent.data) > 500
            assert not any(method in str(sent.headers) for method in METHODS)
        assert client.get(f"/participants/{participant}/trials/{number}/stroke").data.startswith(b"\x89PNG")
        answer(client, participant, number)
    assert "Thank you" in client.get(f"/participants/{participant}").get_data(as_text=True)


def test_a_pair_is_answered_once_and_wholly(client, folders):
    participant = begin(client)
    assert answer(client, participant, 0, motion="middle").status_code == 400
    half = {"overall": "left", "token": token_on(client, f"/participants/{participant}")}
    assert client.post(f"/participants/{participant}/trials/0", data=half).status_code == 400
    assert answer(client, participant, 0).status_code == 303
    assert answer(client, participant, 0).status_code == 409
    assert answer(client, participant, 99).status_code == 404
    assert len(read_votes(folders / "votes.sqlite")) == len(QUESTIONS)


def test_addresses_cannot_be_guessed_and_forms_cannot_be_forged(client):
    key = begin(client)
    assert len(key) >= 20 and key != begin(client)
    for address in ("/participants/1", "/participants/99", f"/participants/{2**70}", "/participants/%0Aa%00b"):
        assert client.get(address).status_code == 404
    for number in (6, 2**63, 2**70):
        assert client.get(f"/participants/{key}/trials/{number}/left").status_code == 404
        assert answer(client, key, number).status_code == 404
    left = dict.fromkeys(QUESTIONS, "left")
    for forged in ("", "0" * 64, "\u2713", token_on(client, "/"), token_on(client, f"/participants/{begin(client)}")):
        assert client.post(f"/participants/{key}/trials/0", data=left | {"token": forged}).status_code == 403
    assert client.post("/participants").status_code == 403
    assert client.post("/participants", data={"token": "x" * 20_000}).status_code == 413


def test_other_hosts_are_refused_and_headers_guard_the_page(folders):
    local = make_app(study_of(folders), folders / "votes.sqlite").test_client()
    assert local.get("/", headers={"Host": "localhost:7000"}).status_code == 200
    assert local.get("/", headers={"Host": "evil.example"}).status_code == 400
    named = make_app(study_of(folders), folders / "votes.sqlite", "study.example").test_client()
    assert named.get("/", headers={"Host": "study.example"}).status_code == 200
    reply = make_app(study_of(folders), folders / "votes.sqlite", "0.0.0.0").test_client().get("/")
    assert reply.status_code == 200 and "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]


def test_a_video_that_went_missing_is_not_found(client, folders):
    key = begin(client)
    for path in (*folders.glob("*/*.mp4"), *folders.glob("*/*.gif")):
        path.unlink()
    assert client.get(f"/participants/{key}/trials/0/left").status_code == 404
    assert client.get(f"/participants/{key}/trials/0/stroke").status_code == 404


def test_many_vote_at_once(folders):
    app = make_app(study_of(folders), folders / "votes.sqlite")
    keys = [begin(app.test_client()) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda key: answer(app.test_client(), key, 0).status_code, keys))
    assert replies == [303] * 16 and len(read_votes(folders / "votes.sqlite")) == 16 * len(QUESTIONS)


def test_votes_of_an_older_version_stay(folders):
    votes = folders / "votes.sqlite"
    answer(client := make_app(study_of(folders), votes).test_client(), begin(client), 0)
    with sqlite3.connect(votes) as database:
        database.executescript(
            "CREATE TABLE old AS SELECT id, began FROM participants; PRAGMA foreign_keys = OFF;"
            "DROP TABLE participants; ALTER TABLE old RENAME TO participants; DROP TABLE secret;"
        )
    make_app(study_of(folders), votes)
    assert len(read_votes(votes)) == len(QUESTIONS)


def test_a_study_goes_on_after_a_restart_and_refuses_another_ones_votes(folders):
    votes = folders / "votes.sqlite"
    client = make_app(study_of(folders), votes).test_client()
    participant = begin(client)
    answer(client, participant, 0)
    again = make_app(study_of(folders), votes).test_client()
    assert "Pair 2 of 6" in again.get(f"/participants/{participant}").get_data(as_text=True)
    with pytest.raises(ValueError, match=r"votes of another study \(other seed\)"):
        make_app(study_of(folders, seed=1), votes)
    with pytest.raises(ValueError, match="other methods"):
        make_app(study_of(folders, methods=METHODS[:2]), votes)
    (folders / "text.sqlite").write_text("no database, but longer than a header would be " * 9)
    with pytest.raises(ValueError, match="not a database of votes"):
        make_app(study_of(folders), folders / "text.sqlite")


def test_one_method_is_no_study(folders):
    with pytest.raises(ValueError, match="two methods or more"):
        study_of(folders, methods=METHODS[:1])


def test_votes_are_reported(client, folders, capsys):
    for person in (1, 2, 3):
        participant = begin(client)
        for number, trial in enumerate(study_of(folders).trials(person)):
            answer(client, participant, number, **dict.fromkeys(QUESTIONS, better(trial)))
    output = folders / "shares.json"
    main(["votes", f"--votes={folders / 'votes.sqlite'}", f"--output={output}"])
    figures = json.loads(output.read_text())["questions"]["overall"]
    assert figures["ours"]["share"] == 1 and figures["third"]["share"] == 0
    assert figures["ours"]["strength"] > figures["theirs"]["strength"] > figures["third"]["strength"]
    assert "ours" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "text"])
def test_votes_that_are_none_are_named(folders, content):
    path = folders / "other.sqlite"
    if content:
        path.write_text(content)
    with pytest.raises(SystemExit, match=r"--votes: .*other.sqlite: (no such file|not the votes)"):
        main(["votes", f"--votes={path}"])


def better(trial) -> str:
    """The side whose method comes first in the alphabet."""
    return "left" if trial.left < trial.right else "right"


@contextmanager
def served(app):
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()


@pytest.mark.e2e
def test_a_participant_goes_through_the_study_in_a_browser(folders, browser):
    """Real clicks: a form with a question left open does not go off, videos play, and answers reach the file."""
    votes = folders / "votes.sqlite"
    study = study_of(folders)
    with served(make_app(study, votes)) as address:
        browser.get(address)
        browser.find_element("id", "begin").click()
        for number, trial in enumerate(study.trials(1)):
            wait_for(browser, "progress", f"Pair {number + 1} of 6")
            assert width_of(browser, "stroke") == 384
            if number == 0:
                browser.find_element("id", "next").click()
                assert "Pair 1 of 6" in browser.find_element("id", "progress").text
            for side in ("left", "right"):
                assert width_of(browser, side) == 96
            for question in QUESTIONS:
                choice = f"input[name={question}][value={better(trial)}]"
                browser.find_element("css selector", choice).click()
            browser.find_element("id", "next").click()
        wait_for(browser, "end", "Thank you.")
    with sqlite3.connect(votes) as database:
        assert database.execute("SELECT COUNT(*) FROM votes").fetchone() == (6 * len(QUESTIONS),)
    assert all(vote.winner < vote.loser for vote in read_votes(votes))


def wait_for(browser, element: str, text: str) -> None:
    """Wait until a page has loaded whose element reads so."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    changing = [NoSuchElementException, StaleElementReferenceException]
    WebDriverWait(browser, 20, 0.05, changing).until(lambda page: page.find_element("id", element).text == text)


def width_of(browser, element: str) -> int:
    """Pixels of a decoded video or picture; waits until it is there."""
    return browser.execute_async_script(
        """
        const [name, done] = arguments, shown = document.getElementById(name), began = Date.now();
        const look = () => {
          const width = shown.videoWidth || shown.naturalWidth;
          width || Date.now() - began > 10000 ? done(width) : setTimeout(look, 50);
        };
        look();
        """,
        element,
    )

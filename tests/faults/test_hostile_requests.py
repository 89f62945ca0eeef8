"""One malformed request of each kind against the service over real HTTP; `benchmarks.serve_fuzz` sends thousands."""

import socket
import threading
import time

import pytest

from benchmarks.hostile_requests import KINDS, hostile_requests
from benchmarks.pocket_service import PocketService, good_record
from benchmarks.serve_fuzz import Answer, faults, send
from models.serving.limits import Limits
from models.serving.pyfunc import ImageConductorModel
from models.serving.service import Service
from stages.serve import Server
from tests.unit import tiny

COSTLY = ("large picture", "many large keyframes")  # a second of work for each picture
REQUESTS = {request.kind: request for request in hostile_requests(len(KINDS), seed=3) if request.kind not in COSTLY}


@pytest.fixture(scope="module")
def port():
    """The port of a service on a tiny model."""
    model = ImageConductorModel()
    model._pipeline = tiny.pipeline()
    service = Service(Limits(body_seconds=0.5, max_body_mb=4))
    service.open(model, scoring=None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    server = Server(service, "127.0.0.1", number)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(20)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_malformed_request_gets_a_short_answer_in_time_that_repeats_nothing(kind, port):
    request = REQUESTS[kind]
    answer = send(port, request)

    assert not list(faults(request, answer)), answer
    assert answer.status not in (500, 501, 502)


def test_a_good_request_is_answered_after_all_of_them(port):
    status, _ = PocketService(port, None, None).ask([good_record()])
    assert status == 200


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(500, b'{"message": "x"}', 0.1), "status 500"),
        (Answer(503, b"", 0.1), "status 503"),
        (Answer(400, b"Traceback (most recent call last)", 0.1), "traceback"),
        (Answer(400, b"x" * 5000, 0.1), "5000 bytes"),
        (Answer(400, b"", 11.0), "11.0 s"),
        (Answer(-1, b"", 0.1), "no answer"),
        (Answer(0, b"", 0.1), "closed without an answer"),
        (Answer(400, REQUESTS["deep"].mark.encode(), 0.1), "echo"),
    ],
)
def test_the_judge_of_answers_sees_each_fault(answer, fault):
    assert list(faults(REQUESTS["deep"], answer)) == [fault]

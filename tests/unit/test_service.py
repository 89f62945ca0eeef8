"""The service in front of MLflow's scoring application, with a tiny model or a stand-in for one."""

import asyncio
import base64
import contextlib
import io
import json
import threading
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from models.serving import pyfunc
from models.serving.body import HttpRefusal, parse_records
from models.serving.image import ImageError, PixelBudget, decode_image, read_image
from models.serving.jobs import JobQueue, ServedJob
from models.serving.limits import Limits
from models.serving.metrics import ServiceMetrics
from models.serving.pyfunc import ImageConductorModel
from models.serving.service import Service
from tests.unit import tiny

LIMITS = Limits(body_seconds=0.5, max_work=12 * tiny.FRAMES, queue_length=2, max_body_mb=1)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def record(**fields) -> dict:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    stroke = [[[4, 4], [12.5, 8]]]
    return {"image": encoded(image), "trajectories": stroke, "mode": "object", "prompt": "", "seed": 1} | fields


def test_no_damaged_picture_is_more_than_a_refusal(tmp_path):
    """Pillow raises errors of many kinds for damaged metadata."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "maker", 0x8769: {0x9003: "2026:01:01 00:00:00"}})
    refused = 0
    for kind in ("JPEG", "PNG"):
        whole = base64.b64decode(encoded(pixels, kind, exif=exif))
        for _ in range(600):
            damaged = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 250), rng.integers(1, 6)):
                damaged[place] = rng.integers(0, 256)
            (tmp_path / "picture").write_bytes(damaged)
            try:
                decode_image(base64.b64encode(damaged).decode(), (24, 16), PixelBudget(10_000))
            except ImageError as error:
                refused += 1
                assert str(error).startswith("image: ")
            with contextlib.suppress(ImageError):
                read_image(tmp_path / "picture")
    assert 100 < refused < 1200


def test_the_registered_precision_counts_on_a_gpu(monkeypatch):
    loaded: list[torch.dtype] = []
    monkeypatch.setattr(pyfunc, "load_model", lambda folder, dtype: loaded.append(dtype) or tiny.pipeline())
    monkeypatch.setattr(pyfunc, "place", lambda pipeline: pipeline)
    for config, on_gpu in (({"precision": "bf16"}, True), ({"precision": "bf16"}, False), (None, True)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda on_gpu=on_gpu: on_gpu)
        ImageConductorModel().load_context(SimpleNamespace(artifacts={"model": "folder"}, model_config=config))
    assert loaded == [torch.bfloat16, torch.float32, torch.float32]


@pytest.fixture(scope="module")
def model() -> ImageConductorModel:
    model = ImageConductorModel()
    model._pipeline = tiny.pipeline()
    return model


@pytest.fixture
def client(model):
    service = Service(LIMITS)
    service.open(model, scoring=None)
    with TestClient(service.app) as client:
        yield client


def post(client: TestClient, content: bytes | str, kind: str = "application/json"):
    return client.post("/invocations", content=content, headers={"Content-Type": kind})


def answer(client: TestClient, **fields) -> dict:
    response = client.post("/invocations", json={"inputs": [record(**fields)]})
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]


def test_a_request_gets_its_videos_in_mlflows_form(client):
    response = client.post("/invocations", json={"inputs": [record(seed=7), record(seed=8)]})

    assert [video["seed"] for video in response.json()["predictions"]] == [7, 8]
    assert response.json().keys() == {"predictions"}


BODIES = {
    "digits": '{"inputs": [{"seed": %s}]}' % ("9" * 4301),
    "digits of a fraction": '{"inputs": [{"seed": 0.%s}]}' % ("9" * 5000),
    "depth": '{"inputs": ' + "[" * 990 + "]" * 990 + "}",
    "an open depth": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "closing only": "]" * 100_000,
    "empty lists": '{"inputs": [[]' + ", []" * 200_000 + "]}",
    "nothing": "",
    "no JSON": "{" + "A" * 500_000,
    "an open string": '{"inputs": ["' + 'a\\"' * 100_000,
    "a list": json.dumps([record()]),
    "one record": json.dumps(record()),
    "an object as inputs": json.dumps({"inputs": record(prompt="x" * 100_000)}),
    "a number as record": '{"inputs": [1]}',
    "null as record": '{"inputs": [null]}',
    "no inputs": '{"instances": []}',
    "a long key": json.dumps({"A" * 500_000: 1}),
    "a long field": json.dumps({"inputs": [record() | {"A" * 500_000: 1}]}),
    "long names": json.dumps({"inputs": [record(personal_loras={"A" * 400_000 + str(i): 1.0 for i in range(2)})]}),
    "an unknown name": json.dumps({"inputs": [record(personal_loras={"AAAAAA": 1.0})]}),
    "an unknown name with a boundless weight": json.dumps({"inputs": [record(personal_loras={"AAAAAA": 1e39})]}),
    "an unknown name with a text": json.dumps({"inputs": [record(personal_loras={"AAAAAA": "B" * 9})]}),
    "an unknown field": json.dumps({"inputs": [record(AAAAAA=1)]}),
    "an unknown field of a camera": json.dumps({"inputs": [record(camera={"move": "zoom_in", "AAAAAA": 1.0})]}),
    "an unknown move": json.dumps({"inputs": [record(camera={"move": "BBBBBB", "amount": 1.0})]}),
    "an unknown field of a keyframe": json.dumps({"inputs": [record(keyframes=[{"frame": 1, "AAAAAA": "CCCCCC"}])]}),
    "a field beside inputs": json.dumps({"inputs": [record()], "AAAAAA": 1}),
    "many names": json.dumps({"inputs": [record(personal_loras={f"{i}": 1.0 for i in range(20_000)})]}),
    "a long camera": json.dumps({"inputs": [record(camera={"B" * 500_000: 1.0})]}),
    "params": json.dumps({"inputs": [record()], "params": {"temperature": 1}}),
    "LLM keys": json.dumps({"messages": [{"role": "user", "content": "C" * 100_000}]}),
    "half a surrogate": '{"inputs": [{"prompt": "\\ud800"}]}',
    "half a surrogate as key": '{"\\ud800": 1}',
    "not a number as weight": json.dumps({"inputs": [record(personal_loras={"a": float("nan")})]}),
    "a boundless weight": json.dumps({"inputs": [record(personal_loras={"a": 1e39})]}),
    "too much work": json.dumps({"inputs": [record(num_inference_steps=200)]}),
    "not UTF-8": b'{"inputs": "\xff\xfe"}',
    "UTF-16": '{"inputs": [[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_gets_a_short_refusal_without_an_echo(client, name):
    began = time.monotonic()
    response = post(client, BODIES[name])

    assert response.status_code == 400, response.text[:500]
    assert len(response.content) < 4096
    assert response.json().keys() == {"error_code", "message"}
    assert "Traceback" not in response.text
    assert not any(letter * 5 in response.text for letter in "ABC")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("kind", ["text/csv", "application/vnd.apache.parquet", "application/json; charset=utf-16", ""])
def test_another_content_type_is_refused(client, kind):
    response = post(client, json.dumps({"inputs": [record()]}), kind)

    assert (response.status_code, response.json()["message"][:13]) == (415, "Content-Type:")


def test_a_body_over_its_size_is_refused(client):
    assert post(client, b" " * (2**20 + 1)).status_code == 413


@pytest.mark.parametrize("pause", [60, 0.05])
def test_a_body_that_does_not_go_on_or_trickles_is_refused_in_time(pause):
    service = Service(LIMITS)
    service.open(ImageConductorModel(), scoring=None)
    sent: list[dict] = []

    async def receive():
        await asyncio.sleep(pause if asked else 0)
        asked.append(1)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def send(message):
        sent.append(message)

    asked: list[int] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/invocations",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    asyncio.run(asyncio.wait_for(service.app(scope, receive, send), 10))
    assert sent[0]["status"] == 408


def test_a_request_that_cannot_be_read_in_time_is_told_to_come_again(model):
    service = Service(LIMITS)
    service.open(model, scoring=None)
    with TestClient(service.app) as client:
        client.portal.call(service._reading.acquire)
        busy = client.post("/invocations", json={"inputs": [record()]})
        client.portal.call(service._reading.release)
        assert (busy.status_code, busy.headers["Retry-After"]) == (429, "5")
        answer(client)


def test_pixels_of_a_request_are_counted_together(model):
    one = 24 * 16
    keyframed = record(keyframes=[{"frame": 1, "image": record()["image"]}])
    for records in ([record()] * 3, [record(), keyframed]):
        model.plan(records, {"max_pixels": 3 * one})
        with pytest.raises(pyfunc.Refusal, match=f"image: 24x16 pixels.*{3 * one - 1} pixels together"):
            model.plan(records, {"max_pixels": 3 * one - 1})


def test_a_jpeg_of_very_many_scans_is_refused():
    whole = base64.b64decode(encoded(Image.new("RGB", (24, 16)), "JPEG"))
    text = base64.b64encode(whole + b"\xff\xda" * 100).decode()
    with pytest.raises(ImageError, match="more than 100 scans"):
        decode_image(text, (24, 16), PixelBudget(10_000))


def test_limits_are_those_of_the_parameters():
    body = json.dumps({"inputs": [[[1, 2]] * 5]}).encode()

    assert parse_records(body, Limits(max_points=20))
    with pytest.raises(HttpRefusal, match="more than about 4 points"):
        parse_records(body, Limits(max_points=4))
    with pytest.raises(HttpRefusal, match="more than 3 deep"):
        parse_records(body, Limits(max_json_depth=3))


def test_brackets_and_digits_within_texts_do_not_count(client):
    assert answer(client, prompt='[[[{"\\' * 50 + "1" * 60)


def test_damaged_exif_counts_as_none(client):
    exif = Image.Exif()
    exif[0x0112] = 6
    good = base64.b64decode(encoded(Image.new("RGB", (24, 16), "red"), "JPEG", exif=exif.tobytes()))
    for damage in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"):
        start = good.index(b"Exif\0\0")
        bad = good[:start] + damage + good[start + len(damage) :]
        answer(client, image=base64.b64encode(bad).decode())


def test_a_picture_is_what_the_eye_sees(model):
    ramp = np.linspace(0, 65535, 24 * 16).reshape(16, 24)
    deep = Image.fromarray(ramp.astype(np.uint16))
    clear = Image.new("RGBA", (24, 16), (0, 255, 0, 0))
    one_grey = Image.new("L", (24, 16), 3)
    (grey,) = model.plan([record(image=encoded(deep))])
    assert np.abs(np.asarray(grey.wish.image)[..., 0] - ramp / 257).max() <= 1

    (white,) = model.plan([record(image=encoded(clear))])
    assert np.asarray(white.wish.image).min() == 255
    assert "over white" in white.wish.notes[0]

    (white,) = model.plan([record(image=encoded(one_grey, transparency=3))])
    assert np.asarray(white.wish.image).min() == 255


def test_what_was_done_to_picture_and_prompt_is_said(client):
    clear = Image.new("RGBA", (24, 16), (0, 255, 0, 0))
    notes = answer(client, image=encoded(clear), prompt="a red circle " * 100)["notes"]

    assert any("over white" in note for note in notes)
    assert any(note.startswith("prompt: cut") for note in notes)
    resampled = answer(client, trajectories=[[[4, 4], [9, 6], [16, 8]]], frames=81)["notes"]
    assert resampled == ["strokes of 81 frames were resampled in time to 3"]
    assert answer(client)["notes"] == []


def test_a_large_picture_is_kept_at_the_frames_size_and_its_strokes_in_its_own_pixels(model):
    turned = Image.Exif()
    turned[0x0112] = 6
    large = Image.new("RGB", (1000, 1600), "red")
    (planned,) = model.plan(
        [record(image=encoded(large, "JPEG", exif=turned.tobytes()), trajectories=[[[1500, 900], [1000, 500]]])]
    )

    assert planned.wish.image.size == (tiny.WIDTH, tiny.HEIGHT)
    assert planned.wish.trajectories.canvas == (1600, 1000)


def test_frames_that_are_no_numbers_are_an_error(client, model):
    weight = next(model._pipeline.unet.parameters()).data
    kept = weight.clone()
    weight.fill_(float("nan"))
    try:
        response = client.post("/invocations", json={"inputs": [record()]})
    finally:
        weight.copy_(kept)

    assert response.status_code == 400
    assert "not numbers" in response.json()["message"]


class Video(NamedTuple):
    steps: int


class SlowModel:
    """Waits at each step until it is let go on."""

    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)
        self.made = 0

    def plan(self, records, limits):
        return [Video(int(each)) for each in records]

    def make(self, index, planned, on_step):
        for _ in range(planned.steps):
            self.go_on.acquire()
            on_step(lambda: b"jpeg")
        self.made += 1
        return {"video": planned.steps}


@pytest.fixture
def slow():
    """A service on a slow model."""
    service, model = Service(LIMITS), SlowModel()
    service.open(model, scoring=None)
    with TestClient(service.app) as client:
        yield client, model, service
        model.go_on.release(1000)


def until(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 5 s")


def new_job(client, *steps: int):
    return client.post("/jobs", json={"inputs": list(steps)})


def test_a_job_tells_its_position_step_and_preview_and_then_its_result(slow):
    client, model, _ = slow
    first, second = (new_job(client, 2).json()["id"] for _ in range(2))
    until(lambda: client.get(f"/jobs/{first}").json()["state"] == "running")
    assert client.get(f"/jobs/{second}").json()["position"] == 1

    model.go_on.release()
    until(lambda: client.get(f"/jobs/{first}").json()["step"] == 1)
    assert base64.b64decode(client.get(f"/jobs/{first}").json()["preview"]) == b"jpeg"

    model.go_on.release(3)
    until(lambda: client.get(f"/jobs/{second}").json()["state"] == "done")
    assert client.get(f"/jobs/{second}").json()["predictions"] == [{"video": 2}]


def test_a_full_queue_is_said_with_the_time_to_wait(slow):
    client, _, _ = slow
    running = new_job(client, 5).json()["id"]
    until(lambda: client.get(f"/jobs/{running}").json()["state"] == "running")
    assert [new_job(client, 1).status_code for _ in range(3)] == [202, 202, 429]
    assert int(new_job(client, 1).headers["Retry-After"]) >= 1


def test_a_deleted_job_ends_after_its_step_and_the_next_begins(slow):
    client, model, _ = slow
    running, waiting, last = (new_job(client, 100).json()["id"] for _ in range(3))
    until(lambda: client.get(f"/jobs/{running}").json()["state"] == "running")
    assert client.delete(f"/jobs/{waiting}").json()["state"] == "cancelled"
    client.delete(f"/jobs/{running}")
    model.go_on.release()

    until(lambda: client.get(f"/jobs/{last}").json()["state"] == "running")
    state = client.get(f"/jobs/{running}").json()
    assert (state["state"], state["step"], model.made) == ("cancelled", 1, 0)


def test_a_client_that_leaves_stops_its_work(slow):
    _, model, service = slow
    waits = threading.Event()

    async def run():
        left = asyncio.Event()
        messages = [{"type": "http.request", "body": b'{"inputs": [100]}', "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            waits.set()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        scope = {"type": "http", "method": "POST", "path": "/invocations", "query_string": b""}
        headers = [(b"content-type", b"application/json")]
        asked = asyncio.create_task(service.app(scope | {"headers": headers}, receive, send))
        await asyncio.to_thread(waits.wait)
        left.set()
        await asked

    asyncio.run(run())
    model.go_on.release(2)
    until(lambda: service._jobs._running is None)
    assert model.made == 0


def test_work_over_its_time_limit_is_stopped():
    model = SlowModel()
    queue = JobQueue(model, Limits(base_seconds=0.01, seconds_per_step=0.001), ServiceMetrics())
    job = ServedJob([Video(50)])
    queue.submit(job)
    time.sleep(0.1)
    model.go_on.release(50)

    with pytest.raises(HttpRefusal, match="over its time limit") as caught:
        job.result.result(5)
    assert caught.value.status == 504
    assert model.made == 0


def test_an_ending_service_hands_back_what_waits_and_stops_what_runs():
    model = SlowModel()
    queue = JobQueue(model, Limits(shutdown_seconds=0.05), ServiceMetrics())
    running, waiting = ServedJob([Video(50)]), ServedJob([Video(1)])
    for job in (running, waiting):
        queue.submit(job)
    until(lambda: running.state == "running")
    queue.drain()

    for job in (waiting, running):
        if job is running:
            time.sleep(0.2)
            model.go_on.release(2)
        with pytest.raises(HttpRefusal, match="the service ends"):
            job.result.result(5)
    with pytest.raises(HttpRefusal, match="the service ends"):
        queue.submit(ServedJob([Video(1)]))


def test_stopping_the_sampler_leaves_the_networks_as_they_were(model):
    (planned,) = model.plan([record(num_inference_steps=5)])
    right = model.make(0, planned)["video"]
    queue = JobQueue(model, Limits(), ServiceMetrics())
    job = ServedJob([planned])
    job.wants_preview = True
    queue.submit(job)
    until(lambda: job.step > 0)
    queue.stop(job, HttpRefusal(409, "CANCELLED", "enough"))
    until(lambda: job.state in ("cancelled", "done"))

    assert job.step < 5
    with Image.open(io.BytesIO(job.preview)) as preview:
        assert preview.size == (tiny.WIDTH, tiny.HEIGHT)
    assert model.make(0, planned)["video"] == right


def test_health_ready_metrics_and_unknown_paths(model):
    service = Service(LIMITS)
    with TestClient(service.app) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        loading = client.post("/invocations", json={"inputs": [record()]})
        assert (loading.status_code, loading.headers["Retry-After"]) == (503, "5")
        service.open(model, scoring=None)
        assert client.get("/ready").status_code == 200
        assert client.get("/nowhere").json()["error_code"] == "BAD_REQUEST"
        assert client.get("/invocations").status_code == 405
        answer(client, prompt="a secret")
        figures = client.get("/metrics").text
        assert 'image_conductor_requests_total{path="/invocations",status="200"} 1.0' in figures
        assert "image_conductor_steps_total 2.0" in figures
        assert "secret" not in figures

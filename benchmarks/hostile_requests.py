"""Malformed HTTP requests of many kinds, drawn from a seed.

Every text that a request brings holds its `mark`, so that an answer that repeats it is noticed. What a kind needs to be
hostile is drawn within it: sizes, places of damage, fields and values.
"""

import base64
import functools
import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.pocket_service import good_record
from models.serving.request import Request

Rng = np.random.Generator
FIELDS = tuple(Request.model_fields)
MARK_LENGTH = 14
RARE = 5  # rounds; kinds that take seconds of work or of waiting come in one of so many


class HostileRequest(NamedTuple):
    """One request, as bytes for a socket.

    mark: a text that no answer may repeat. parts: what is sent, one after another. pause: seconds between the parts.
    """

    kind: str
    mark: str
    parts: tuple[bytes, ...]
    pause: float = 0.0


def hostile_requests(count: int, seed: int) -> Iterator[HostileRequest]:
    """So many requests, all kinds in turn. The same seed gives the same bytes."""
    rounds = itertools.cycle([name for name in KINDS if round == 0 or name not in SLOW] for round in range(RARE))
    for i, name in zip(range(count), itertools.chain.from_iterable(rounds), strict=False):
        rng = np.random.default_rng((seed, i))
        mark = "Zq" + rng.bytes(MARK_LENGTH // 2 - 1).hex()
        made = KINDS[name](rng, mark)
        parts, pause = made if isinstance(made, tuple) else (made, 0.0)
        yield HostileRequest(name, mark, tuple(parts), pause)


def _post(
    body: bytes | str, kind: str = "application/json", path: str = "/invocations", extra: str = ""
) -> list[bytes]:
    body = body.encode() if isinstance(body, str) else body
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return [head.encode(), body]


def _inputs(*records: Any) -> list[bytes]:
    return _post(json.dumps({"inputs": list(records)}))


def _any_path(rng: Rng, body: str) -> list[bytes]:
    return _post(body, path=str(rng.choice(["/invocations", "/jobs"])))


def _marked(mark: str, length: int) -> str:
    return (mark * (length // len(mark) + 1))[:length]


def _picture(rng: Rng, kind: str, size: tuple[int, int] = (48, 32), **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def _large_picture(mode: str, side: int) -> str:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG", compress_level=9)
    return base64.b64encode(buffer.getvalue()).decode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def long_number(rng: Rng, mark: str) -> list[bytes]:
    digits = "9" * int(rng.choice([41, 310, 4300, 4301, 50_000]))
    number = str(rng.choice([digits, f"-{digits}", f"0.{digits}", f"1e{digits}", f"{digits}.5e-{digits[:5]}"]))
    field = str(rng.choice(FIELDS))
    body = json.dumps({"inputs": [good_record(**{field: "@"})]}).replace('"@"', number)
    return _any_path(rng, body)


def deep(rng: Rng, mark: str) -> list[bytes]:
    levels = int(rng.choice([17, 100, 990, 1000, 20_000, 200_000]))
    opening, closing = [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")][rng.integers(3)]
    middle = opening * levels + (f'"{mark}"' + closing * levels if rng.random() < 0.7 else "")
    return _any_path(rng, f'{{"inputs": {middle}}}' if rng.random() < 0.7 else middle)


def damaged_exif(rng: Rng, mark: str) -> list[bytes]:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: mark, 0x8769: {0x9003: "2026:01:01 00:00:00"}})
    kind = str(rng.choice(["JPEG", "PNG"]))
    data = bytearray(_picture(rng, kind, exif=exif))
    start = max(data.find(b"Exif"), data.find(b"eXIf"), 0)
    for place in rng.integers(start, start + 90, rng.integers(1, 12)):
        data[place] = rng.integers(256)
    return _inputs(good_record(image=_text(bytes(data))))


def damaged_picture(rng: Rng, mark: str) -> list[bytes]:
    data = bytearray(_picture(rng, str(rng.choice(["JPEG", "PNG"]))))
    for place in rng.integers(0, len(data), rng.integers(1, 40)):
        data[place] = rng.integers(256)
    return _inputs(good_record(image=_text(bytes(data[: rng.integers(1, len(data) + 1)]))))


def other_file(rng: Rng, mark: str) -> list[bytes]:
    kind = str(rng.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA"]))
    others = [b"", b"%PDF-1.7" + mark.encode(), b"<svg/>", b"\x89PNG\r\n\x1a\n", rng.bytes(2000), _picture(rng, kind)]
    return _inputs(good_record(image=_text(others[rng.integers(len(others))])))


def broken_base64(rng: Rng, mark: str) -> list[bytes]:
    whole = _text(_picture(rng, "PNG"))
    cut = int(rng.integers(1, len(whole)))
    texts = [whole[:cut], whole[:cut] + "*" + whole[cut:], "data:image/png;base64," + whole, f"https://x/{mark}.png"]
    texts += [f"/etc/passwd?{mark}", whole + "\n", whole.replace("A", "\u0410"), mark * 5000, "", "\ud800", whole * 3]
    return _inputs(good_record(image=texts[rng.integers(len(texts))]))


def large_picture(rng: Rng, mark: str) -> list[bytes]:
    image = _large_picture(str(rng.choice(["L", "RGB", "I;16", "RGBA", "1", "P"])), 8192)
    records = int(rng.choice([1, 8]))
    return _inputs(*[good_record(image=image)] * records)


def many_large_keyframes(rng: Rng, mark: str) -> list[bytes]:
    image = _large_picture("1", int(rng.choice([2048, 4096, 8192])))
    frames = [{"frame": i, "image": image} for i in range(1, 8)]
    return _inputs(*[good_record(image=image, keyframes=frames)] * int(rng.choice([1, 8])))


def picture_of_odd_size(rng: Rng, mark: str) -> list[bytes]:
    size = [(1, 1), (8193, 8), (1, 8), (1, 9), (20_000, 2), (2, 60_000), (8192, 1025)][rng.integers(7)]
    return _inputs(good_record(image=_text(_picture(rng, "PNG", size))))


ODD_VALUES: tuple[Callable[[str], Any], ...] = (
    lambda mark: None,
    lambda mark: True,
    lambda mark: -1,
    lambda mark: 1.5,
    lambda mark: 2**63,
    lambda mark: -(2**70),
    lambda mark: float("nan"),
    lambda mark: float("inf"),
    lambda mark: 1e308,
    lambda mark: 1e-320,
    lambda mark: mark,
    lambda mark: "",
    lambda mark: _marked(mark, 100_000),
    lambda mark: "\ud800\u0000\u202e" + mark,
    lambda mark: [],
    lambda mark: {},
    lambda mark: [mark],
    lambda mark: {mark: mark},
    lambda mark: {mark * 3: 1.0},
    lambda mark: [[]],
    lambda mark: [[[]]],
    lambda mark: [[[1]]],
    lambda mark: [[[1, 2, 3]]],
    lambda mark: [[["1", mark]]],
    lambda mark: [[[1e308, -1e308], [float("nan"), 0]]],
    lambda mark: [[[1e30, 1e30], [1, 1]]],
    lambda mark: [[[-5000, 10], [99999, 10]]],
    lambda mark: {"move": mark, "amount": 3},
    lambda mark: {"move": "zoom_in", "amount": float("inf")},
    lambda mark: {"move": "zoom_in", "amount": mark},
    lambda mark: {"move": "zoom_in", mark: 1},
    lambda mark: {"move": [mark], "amount": {mark: 1}},
    lambda mark: {mark: 1e39},
    lambda mark: {mark: mark},
    lambda mark: [{"frame": 1, "image": mark}],
    lambda mark: [{"frame": mark, mark: 1}],
    lambda mark: [[True, False]],
    lambda mark: [[0.0, 2.0]],
    lambda mark: [[1.0, 0.0]],
)


def odd_value(rng: Rng, mark: str) -> list[bytes]:
    fields = rng.choice(FIELDS, rng.integers(1, 4), replace=False)
    odd = {str(field): ODD_VALUES[rng.integers(len(ODD_VALUES))](mark) for field in fields}
    return _any_path(rng, json.dumps({"inputs": [good_record(**odd)]}))


def odd_value_of_one_field(rng: Rng, mark: str) -> list[bytes]:
    odd = {str(rng.choice(FIELDS)): ODD_VALUES[rng.integers(len(ODD_VALUES))](mark)}
    return _any_path(rng, json.dumps({"inputs": [good_record(**odd)]}))


def unknown_field(rng: Rng, mark: str) -> list[bytes]:
    name = _marked(mark, int(rng.choice([14, 60, 5000, 500_000])))
    value = [1, mark, None, {name: 1}][rng.integers(4)]
    places = [
        {"inputs": [good_record(**{name: value})]},
        {"inputs": [good_record()], name: value},
        {name: value},
        {"inputs": [{name: value}]},
        {"inputs": [good_record(camera={name: 1.0})]},
        {"inputs": [good_record(personal_loras={name: 1.0})]},
        {"inputs": [good_record(keyframes=[{"frame": 1, "image": "", name: 1}])]},
        {"inputs": [good_record(**{f"{mark}{i}": 1 for i in range(3000)})]},
    ]
    return _any_path(rng, json.dumps(places[rng.integers(len(places))]))


def missing_field(rng: Rng, mark: str) -> list[bytes]:
    record = good_record(prompt=mark)
    for field in rng.choice(list(record), rng.integers(1, 4), replace=False):
        del record[str(field)]
    return _inputs(record)


def other_shape(rng: Rng, mark: str) -> list[bytes]:
    record = good_record(prompt=mark)
    columns, values = list(record), list(record.values())
    shapes = [
        record,
        [record],
        {"inputs": record},
        {"inputs": {key: [value] for key, value in record.items()}},
        {"instances": [record]},
        {"dataframe_records": [record]},
        {"dataframe_split": {"columns": columns, "data": [values]}},
        {"inputs": [record] * 9},
        {"inputs": []},
        {"inputs": [[record]]},
        {"inputs": [mark, 1, None]},
        {"inputs": mark},
        {"inputs": None},
        {"messages": [{"role": "user", "content": mark * 1000}]},
        {"prompt": mark},
        mark,
        17,
        None,
        True,
        {},
        [],
    ]
    return _any_path(rng, json.dumps(shapes[rng.integers(len(shapes))]))


def params_of_the_body(rng: Rng, mark: str) -> list[bytes]:
    params = [{"temperature": 1}, {mark: mark}, mark, [mark], 5, {"num_inference_steps": 10**9}][rng.integers(6)]
    return _any_path(rng, json.dumps({"inputs": [good_record()], "params": params}))


def duplicate_keys(rng: Rng, mark: str) -> list[bytes]:
    record = json.dumps(good_record())
    twice = [
        f'{{"inputs": [{mark!r}], "inputs": [{record}]}}'.replace("'", '"'),
        f'{{"inputs": [{record[:-1]}, "prompt": "{mark}"}}]}}',
        f'{{"inputs": [{record[:-1]}, "seed": "{mark}"}}]}}',
        '{"inputs": [' + record[:-1] + f', "{mark}": 1' * 20_000 + "}]}",
    ]
    return _any_path(rng, twice[rng.integers(len(twice))])


def not_utf8(rng: Rng, mark: str) -> list[bytes]:
    good = json.dumps({"inputs": [good_record(prompt=mark)]})
    bodies = [good.encode("utf-16"), good.encode("utf-32"), b"\xff\xfe" + good.encode(), b"\x00" * 500]
    damaged = bytearray(good.encode())
    for place in rng.integers(0, len(damaged), 5):
        damaged[place] = rng.integers(128, 256)
    return _post(
        [*bodies, bytes(damaged), rng.bytes(3000), b"\xef\xbb\xbf\xef\xbb\xbf" + good.encode()][rng.integers(7)]
    )


def broken_json(rng: Rng, mark: str) -> list[bytes]:
    good = json.dumps({"inputs": [good_record(prompt=mark)]})
    place = int(rng.integers(1, len(good)))
    near_the_end = len(good) - int(rng.integers(1, 90))
    bodies = [
        good[:place],
        good[:near_the_end],
        good[:near_the_end] + "}" + good[near_the_end:],
        good.replace('"', "'"),
    ]
    bodies += [good + good, "{" + mark * 40_000, f"<xml>{mark}</xml>", f'"{mark}', "", " " * 100_000, good + "\x00"]
    return _any_path(rng, bodies[rng.integers(len(bodies))])


def many_values(rng: Rng, mark: str) -> list[bytes]:
    strokes: list[Any] = [
        [[[1, 2]]] * 300_000,
        [[[1, 2]] * 300_000],
        [[]] * 60_000,
        [[1] * 60_000],
        [[[0, 0]] * 300] * 100,
        list(range(100_000)),
    ]
    field = str(rng.choice(["trajectories", "camera_trajectories", "times", "visibility"]))
    return _inputs(good_record(**{field: strokes[rng.integers(len(strokes))]}))


def too_much_work(rng: Rng, mark: str) -> list[bytes]:
    steps = int(rng.choice([51, 200, 201, 10**6]))
    return _inputs(*[good_record(num_inference_steps=steps)] * 8)


def other_content_type(rng: Rng, mark: str) -> list[bytes]:
    kinds = ["text/csv", "application/vnd.apache.parquet", "text/plain", "multipart/form-data; boundary=x", mark, ""]
    kinds += [
        "application/json; charset=utf-16",
        "application/json; charset=" + mark,
        "application/json;;;",
        "a/b" * 900,
    ]
    return _post(json.dumps({"inputs": [good_record()]}), kinds[rng.integers(len(kinds))])


def odd_path(rng: Rng, mark: str) -> list[bytes]:
    paths = [
        "/jobs/" + mark,
        f"/jobs/{mark}/../../etc/passwd",
        "/jobs/%00%0a" + mark,
        "/jobs/" + "9" * 4000,
        "/" + mark,
    ]
    paths += [
        "//",
        "/invocations/",
        f"/invocations?{mark}={mark}",
        "/jobs/%ff%fe",
        "/jobs/",
        "/%2e%2e/params.yaml",
        "*",
    ]
    verb = str(rng.choice(["GET", "DELETE", "POST", "PUT", "HEAD"]))
    return [f"{verb} {paths[rng.integers(len(paths))]} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()]


def other_verb(rng: Rng, mark: str) -> list[bytes]:
    verb = str(rng.choice(["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", mark, "post"]))
    path = str(rng.choice(["/invocations", "/jobs", "/jobs/x", "/health", "/ready", "/metrics", "/ping", "/version"]))
    body = json.dumps({"inputs": [good_record()]})
    return [f"{verb} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()]


def broken_http(rng: Rng, mark: str) -> list[bytes]:
    heads = [
        f"{mark}\r\n\r\n",
        "GET\r\n\r\n",
        f"POST /invocations HTTP/9.9\r\n{mark}: 1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        f"POST /invocations HTTP/1.1\r\n{mark}\r\n\r\n",
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nX: {mark * 9000}\r\n\r\n",
        f"POST /{mark * 9000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"POST /invocations HTTP/1.1\r\nHost: a\r\nHost: {mark}\r\n\r\n",
        "POST /invocations HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "\x00" * 300 + "\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ]
    return [heads[rng.integers(len(heads))].encode("latin-1")]


JSON_HEAD = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def bad_length(rng: Rng, mark: str) -> list[bytes]:
    body = json.dumps({"inputs": [good_record(prompt=mark, mode="no")]})
    lengths = ["-1", "1e3", mark, "9" * 400, "0x10", "", f"{len(body)}, {len(body)}", f"+{len(body)}", "0", "5", "1 2"]
    return [f"{JSON_HEAD}Content-Length: {lengths[rng.integers(len(lengths))]}\r\n\r\n{body}".encode()]


def two_lengths(rng: Rng, mark: str) -> list[bytes]:
    extra = ["Content-Length: 3\r\nContent-Length: 4\r\n", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"]
    extra += ["Transfer-Encoding: gzip, chunked\r\n", f"Transfer-Encoding: {mark}\r\n", "Content-Encoding: gzip\r\n"]
    return [f"{JSON_HEAD}{extra[rng.integers(len(extra))]}\r\n3\r\n{{}} \r\n0\r\n\r\n".encode()]


def bad_chunks(rng: Rng, mark: str) -> list[bytes]:
    head = f"{JSON_HEAD}Transfer-Encoding: chunked\r\n\r\n"
    bodies = [f"zz\r\n{mark}\r\n0\r\n\r\n", f"-5\r\n{mark}\r\n", "0\r\n\r\n", f"3\r\n{mark}\r\n0\r\n\r\n"]
    bodies += ["F" * 40 + "\r\n{", f"2;{mark * 3000}\r\n{{}}\r\n0\r\n\r\n", "1\r\n{\r\n" * 4000 + "0\r\n\r\n"]
    return [(head + bodies[rng.integers(len(bodies))]).encode()]


def oversized(rng: Rng, mark: str) -> list[bytes]:
    megabytes = int(rng.choice([33, 50]))
    body = b'{"inputs": ["' + _marked(mark, megabytes * 2**20).encode() + b'"]}'
    return _post(body, extra="Expect: 100-continue\r\n" if rng.random() < 0.2 else "")


def unfinished(rng: Rng, mark: str) -> list[bytes]:
    head = f"{JSON_HEAD}Content-Length: 5000\r\n\r\n"
    starts = [head + '{"inputs": [', f"{JSON_HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{ \r\n", head]
    starts += [f"{JSON_HEAD}Content-Len", "POST /invoca", JSON_HEAD, "\r\n"]
    return [starts[rng.integers(len(starts))].encode()]


def trickle(rng: Rng, mark: str) -> tuple[list[bytes], float]:
    """A byte a second: never a long pause, and never an end."""
    slow_head = f"X-{mark}: 1\r\n" * 20
    starts = [f"{JSON_HEAD}Content-Length: 5000\r\n\r\n", JSON_HEAD]
    first = int(rng.integers(2))
    rest = slow_head if first else '{"inputs": [          '
    return [starts[first].encode(), *(letter.encode() for letter in rest[:20])], 1.0


KINDS: dict[str, Callable[[Rng, str], Any]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        long_number,
        deep,
        damaged_exif,
        damaged_picture,
        other_file,
        broken_base64,
        picture_of_odd_size,
        odd_value,
        odd_value_of_one_field,
        unknown_field,
        missing_field,
        other_shape,
        params_of_the_body,
        duplicate_keys,
        not_utf8,
        broken_json,
        many_values,
        too_much_work,
        other_content_type,
        odd_path,
        other_verb,
        broken_http,
        bad_length,
        two_lengths,
        bad_chunks,
        large_picture,
        many_large_keyframes,
        oversized,
        unfinished,
        trickle,
    )
}
SLOW = {"large picture", "many large keyframes", "oversized", "unfinished", "trickle"}

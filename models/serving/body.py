"""The body of a request: read within limits, and looked at before it is parsed.

A parser's cost is bounded beforehand: depth, digits and the number of commas and brackets are counted on the text
without its strings, which hold the pictures.
"""

import asyncio
import json
import re
import time
from typing import Any

from starlette.requests import ClientDisconnect, Request

from models.serving.limits import Limits
from models.serving.refusal import shortened

MIB = 2**20
STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)  # an open one ends with the text
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
SLOWEST = 2**16  # bytes a second of a body, from its start and beside `body_seconds`; more refuses slow networks
DISCARD_SECONDS = 5.0  # for reading the rest of a body that is too large, so that its sender gets the answer


class HttpRefusal(Exception):
    """A request that ends with a status of its own: 4xx, 503 or 504. `retry_after`: seconds until another try."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, shortened(message), retry_after


async def read_body(request: Request, limits: Limits) -> bytes:
    """The bytes of a JSON request.

    Raises:
        HttpRefusal: another content type (415), too large (413), or a pause that is too long (408).
        ClientDisconnect: the client has left.
    """
    kind, _, options = request.headers.get("content-type", "").partition(";")
    charset = options.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise HttpRefusal(415, "BAD_REQUEST", "Content-Type: only application/json in UTF-8 is read")
    most = limits.max_body_mb * MIB
    parts: list[bytes] = []
    size, stream, began = 0, request.stream(), time.monotonic()
    while True:
        left = began + limits.body_seconds + size / SLOWEST - time.monotonic()
        try:
            part = await asyncio.wait_for(anext(stream), min(left, limits.body_seconds))
        except StopAsyncIteration:
            return b"".join(parts)
        except TimeoutError:
            raise HttpRefusal(
                408,
                "BAD_REQUEST",
                f"body: a pause of {limits.body_seconds:g} seconds, or less than {SLOWEST // 1024} KiB a second",
            ) from None
        size += len(part)
        if size > most:
            parts.clear()
            await _discard(stream)
            raise HttpRefusal(413, "BAD_REQUEST", f"body: up to {limits.max_body_mb} MiB are allowed")
        parts.append(part)


def parse_records(body: bytes, limits: Limits) -> list[Any]:
    """The records of `{"inputs": [record, ...]}`.

    Raises:
        HttpRefusal: status 400; not JSON, over a limit, or of another shape.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(f"body: not UTF-8 at byte {error.start}") from None
    _check_structure(STRINGS.sub(b'""', body), limits)
    try:
        data = json.loads(text, parse_constant=float)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise _bad(f"body: not valid JSON{where}") from None
    if not isinstance(data, dict):
        raise _bad('body: expected an object {"inputs": [record, ...]}')
    if data.get("params"):
        raise _bad("params: not supported; settings are fields of a record")
    if data.keys() - {"inputs", "params"}:
        raise _bad('body: a field beside inputs is unknown; expected {"inputs": [record, ...]}')
    if not isinstance(data.get("inputs"), list):
        raise _bad('inputs: expected a list of records, {"inputs": [record, ...]}')
    return data["inputs"]


def _check_structure(text: bytes, limits: Limits) -> None:
    """Check JSON text whose strings are empty. Raises HttpRefusal, status 400."""
    parts = sum(text.count(sign) for sign in (b",", b"[", b"{"))
    if parts > 2 * limits.max_points:  # a point [x, y] has two: its bracket and its comma
        raise _bad(f"body: more than about {limits.max_points} points or values; draw fewer or simpler strokes")
    if re.search(rb"[0-9]{%d}" % (limits.max_number_digits + 1), text):
        raise _bad(f"body: a number of more than {limits.max_number_digits} digits")
    depth = deepest = 0
    for sign in text.translate(None, NO_BRACKETS):
        depth += 1 if sign in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > limits.max_json_depth:
        raise _bad(f"body: lists and objects lie more than {limits.max_json_depth} deep in each other")


async def _discard(stream: Any) -> None:
    """Read what is left for a while and forget it: a connection that is closed at once loses its answer."""

    async def rest() -> None:
        async for _ in stream:
            pass

    try:
        await asyncio.wait_for(rest(), DISCARD_SECONDS)
    except (TimeoutError, ClientDisconnect):
        return


def _bad(message: str) -> HttpRefusal:
    return HttpRefusal(400, "INVALID_PARAMETER_VALUE", message)

"""A slot of a GPU: a lease on a limit of Prefect's server, renewed while a flow's process lives.

The server frees a slot whose lease has run out. That takes up to 75 s, because Prefect allows no lease below 60 s. The
keeper of a flow that was killed gives the slot back at once: `python flows/slots.py LEASE`.
"""

import contextvars
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from uuid import UUID

from httpx import HTTPError, HTTPStatusError
from prefect import get_run_logger
from prefect.client.orchestration import get_client

GPU_SLOT = "gpu"  # the name of the limit
LEASE_SECONDS = 60  # seconds; the shortest lease that Prefect allows
RENEWAL_SECONDS = 15  # seconds; between two renewals
ASK_SECONDS = 2  # seconds; between two requests for a slot while all are taken


class NoSlots(RuntimeError):
    """The server has no limit of the name `gpu`."""


@contextmanager
def gpu_slot() -> Iterator[UUID]:
    """Wait for a slot and hold it; the name of its lease.

    Raises:
        NoSlots: the server has no such limit.
    """
    lease = _acquire()
    over = threading.Event()
    context = contextvars.copy_context()
    renewal = threading.Thread(target=context.run, args=(_renew, lease, over), daemon=True)
    renewal.start()
    try:
        yield lease
    finally:
        over.set()
        release(lease)


def release(lease: UUID) -> None:
    """Give a slot back. If the server cannot be reached, the slot comes back when its lease runs out."""
    with suppress(HTTPError), get_client(sync_client=True) as client:
        client.release_concurrency_slots_with_lease(lease)


def _acquire() -> UUID:
    with get_client(sync_client=True) as client:
        while True:
            try:
                answer = client.increment_concurrency_slots_with_lease([GPU_SLOT], 1, "concurrency", LEASE_SECONDS)
            except HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.LOCKED:
                    raise
                time.sleep(ASK_SECONDS)
                continue
            lease = answer.json()
            if not lease["limits"]:
                raise NoSlots(
                    f"the Prefect server has no limit {GPU_SLOT}; `make flows` makes it, and so does "
                    f"`prefect gcl create {GPU_SLOT} --limit 1`"
                )
            return UUID(lease["lease_id"])


def _renew(lease: UUID, over: threading.Event) -> None:
    logger = get_run_logger()
    with get_client(sync_client=True) as client:
        while not over.wait(RENEWAL_SECONDS):
            try:
                client.renew_concurrency_lease(lease, LEASE_SECONDS)
            except HTTPStatusError as error:
                if error.response.status_code == HTTPStatus.GONE:
                    logger.warning("the lease of the GPU slot ran out: another flow may use the GPU at the same time")
                    return
                logger.warning("the lease of the GPU slot was not renewed: %s", error)
            except HTTPError as error:
                logger.warning("the lease of the GPU slot was not renewed: %s", error)


if __name__ == "__main__":
    release(UUID(sys.argv[1]))

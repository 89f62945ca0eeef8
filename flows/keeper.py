"""A process that ends with the one that started it, and takes along all that it started.

A keeper stands between a parent and a command. It ends the command, and every process that the command started, when
the parent dies or leaves the context, when the command ends, or when the keeper is told to. The parent's death closes a
pipe, so this holds on every Unix, after `kill -9` too. On Linux the command also gets a parent-death signal, for the
case that the keeper is killed. Processes are found by a mark in their environment, which their own children inherit.

The file is also the keeper's program. It imports nothing of the project and nothing of Prefect, so that it starts fast.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

import psutil

MARK = "IMAGE_CONDUCTOR_KEPT"  # environment variable; marks of all keepers above a process, joined by ":"
SECONDS_TO_STOP = 10  # seconds; between SIGTERM and SIGKILL
_SECONDS_TO_NOTICE = 5  # seconds; that a keeper that was told to end waits to see whether its parent dies too
_PR_SET_PDEATHSIG = 1
_ORDERED = b"."  # sent before the pipe is closed: the parent lives and tidies up itself


@contextmanager
def kept(
    command: Sequence[str],
    output: IO[bytes] | None = None,
    environment: dict[str, str] | None = None,
    afterwards: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command behind a keeper; leaving the context ends all that it started.

    Args:
        output: file for what the command prints; else the parent's own.
        environment: of the command; else the parent's own.
        afterwards: a command that the keeper starts once everything has ended, if the parent died.

    Yields:
        The keeper's process. Its exit code is the command's; 128 + n after signal n.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, mark, json.dumps(list(afterwards)), *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        with suppress(BrokenPipeError):
            process.stdin.write(_ORDERED)
            process.stdin.flush()
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(SECONDS_TO_STOP + _SECONDS_TO_NOTICE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_marked(mark)  # what a killed keeper left


def end_marked(mark: str, seconds: float = SECONDS_TO_STOP) -> None:
    """End all processes with this mark: asked first, killed after `seconds`."""
    members = list(_marked(mark))
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    psutil.wait_procs(members, seconds)
    while members := list(_marked(mark)):  # one of them may have started another meanwhile
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members, 1)


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().get(MARK, "").split(":"):
                yield process


def _keep(mark: str, afterwards: list[str], command: list[str]) -> int:
    """The keeper's own work; the exit code."""
    told, orphaned, ordered = threading.Event(), threading.Event(), threading.Event()
    over = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        told.set()
        over.set()

    def watch_parent() -> None:
        (ordered if os.read(0, 1) else orphaned).set()
        over.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    marks = ":".join(filter(None, [os.environ.get(MARK, ""), mark]))
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=os.environ | {MARK: marks}, preexec_fn=_parent_death_signal()
    )
    threading.Thread(target=watch_parent, daemon=True).start()
    while child.poll() is None and not over.wait(0.1):
        pass
    end_marked(mark)
    code = child.wait()
    if told.is_set() and not ordered.is_set():
        orphaned.wait(_SECONDS_TO_NOTICE)
    if orphaned.is_set() and afterwards:
        subprocess.Popen(afterwards, stdin=subprocess.DEVNULL, env=_unmarked(), start_new_session=True)
    return code if code >= 0 else 128 - code


def _unmarked() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != MARK}


def _parent_death_signal() -> Callable[[], None] | None:
    """What a child runs before its program: ask Linux for SIGKILL at the parent's death; None elsewhere."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return ask


if __name__ == "__main__":
    sys.exit(_keep(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]))

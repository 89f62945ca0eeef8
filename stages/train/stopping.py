"""Ends a training run early and loses nothing: on SIGTERM, with which schedulers announce that a machine is taken away.

A launcher passes SIGTERM on to all of its processes. They agree after each step whether one of them got it.
"""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from models.errors import UserError


class TrainingStopped(UserError):
    """A run that ended on SIGTERM with its checkpoint written; the message names the step."""


class StopSignal:
    """Whether this process got SIGTERM."""

    def __init__(self) -> None:
        self.received = False

    def on_any_process(self, accelerator: Accelerator) -> bool:
        """Whether one of the processes that train together got SIGTERM. All of them must call this together."""
        if accelerator.num_processes == 1:
            return self.received
        flag = torch.tensor(float(self.received), device=accelerator.device)
        return accelerator.reduce(flag, "sum").item() > 0


@contextmanager
def stop_on_sigterm() -> Iterator[StopSignal]:
    """For a while, SIGTERM does not end the process but is noted. Only the main thread can be told of signals."""
    noted = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: object) -> None:
        noted.received = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)


class SavingTimes:
    """When a checkpoint is due: after so many steps, or minutes, since the last one."""

    def __init__(self, steps: int, minutes: float | None):
        self._steps, self._minutes, self._saved = steps, minutes, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after this step. If so, the minutes begin anew."""
        late = self._minutes is not None and time.monotonic() - self._saved >= 60 * self._minutes
        if step % self._steps and not late:
            return False
        self._saved = time.monotonic()
        return True


def run_and_pass_sigterm_on(command: Sequence[str]) -> int:
    """The exit status of a command; SIGTERM goes on to it, and its end is waited for."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)

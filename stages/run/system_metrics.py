"""Load of the machine while a stage runs, measured by MLflow's own monitors: CPU, memory, disk, network, GPUs.

MLflow shows metrics whose names begin with `system/` on a page of their own.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

Log = Callable[[Mapping[str, float], int], None]
"""Takes metrics and the number of the measurement."""


@contextmanager
def system_metrics(log: Log, seconds: float | None) -> Iterator[None]:
    """While it lasts, measure every so many seconds; None: never. GPUs are measured where `pynvml` is installed."""
    if seconds is None:
        yield
        return
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(_monitors(), log, seconds, over), name="system", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # no pynvml, no driver, no GPU: errors of many kinds
        monitors.append(GPUMonitor())
    return monitors


def _watch(monitors: list[Any], log: Log, seconds: float, over: threading.Event) -> None:
    number = 0
    while not over.wait(seconds):
        measured: dict[str, float] = {}
        for monitor in monitors:
            try:
                monitor.collect_metrics()
                measured |= monitor.aggregate_metrics()
            except Exception:  # a monitor that fails costs its figures, not the training
                continue
            finally:
                monitor.clear_metrics()
        log({f"system/{name}": value for name, value in measured.items()}, number)
        number += 1

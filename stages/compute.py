"""Where items are worked on: the one place that knows. `params.compute` chooses; results are the same in every mode.

    for result in map_items(function, items, params.compute, "clips"): ...

`function` and its items must be picklable (a module's function, plain data); results come as they are finished.

Dask workers need this package, and the stage's working folder as theirs (a shared file system):

    dask worker tcp://scheduler:8786                                            # for stages without a network
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://scheduler:8786 --resources GPU=1   # one for each GPU: for all stages
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import TypeVar

import cv2
from tqdm import tqdm

from models.video import STALLED, longest_wait
from stages.params import Compute
from stages.tracking import note_throughput

Item = TypeVar("Item")
Result = TypeVar("Result")

HUNG = 2 * STALLED  # seconds FFmpeg may spend on one frame; then its process is ended, as nothing else can stop it
MIN_AHEAD = 64  # items given to a Dask cluster at once, at least; otherwise two for each thread
WORKER_WAIT = 30.0  # seconds for a Dask worker to come


class ComputeError(RuntimeError):
    """Items that cannot be worked on as `params.compute` says; the message names what is wrong and what to do."""


def map_items(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    compute: Compute,
    title: str,
    crashed: Callable[[Item], Result],
    one_per_accelerator: bool = False,
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order of completion, with a progress bar.

    Args:
        crashed: What to yield for an item that takes its worker process down (a decoder that crashes or hangs, out of
            memory).
        one_per_accelerator: With `compute.workers` null, run one process for each GPU, or a single one without a GPU,
            instead of one per core: for neural estimators. On Dask, only workers with the resource GPU get items.

    Raises:
        ComputeError: the Dask cluster is out of reach, gets lost, or has no worker that is fit.
        Whatever `function` raises; work that has begun is finished, the rest is not started.
    """
    backend = {"serial": _serial, "processes": _processes, "dask": _dask}[compute.backend]
    if not items:
        return
    start = time.monotonic()
    results = backend(function, items, compute, crashed, one_per_accelerator)
    yield from tqdm(results, total=len(items), desc=title, unit="item", disable=None)
    note_throughput(title, len(items), time.monotonic() - start)


def _serial(function, items, compute, crashed, one_per_accelerator) -> Iterator:
    return map(function, items)


def _processes(function, items, compute, crashed, one_per_accelerator) -> Iterator:
    workers = min(len(items), compute.workers or _default_workers(one_per_accelerator))
    left = list(reversed(items))
    while left:
        suspects: list = []
        yield from _pool(function, left, workers, one_per_accelerator, suspects)
        for item in suspects:
            guilty: list = []
            yield from _pool(function, [item], 1, one_per_accelerator, guilty)
            if guilty:
                yield crashed(item)


def _pool(function, left: list, workers: int, neural: bool, suspects: list) -> Iterator:
    """Work `left` off from its end. If a worker dies, stop, with the items that were under way in `suspects`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stages.compute", function.__module__])  # imported once, not once per worker
    running: dict[Future, object] = {}
    with ProcessPoolExecutor(workers, context, _start_worker, (workers, neural, context.Value("i", 0))) as pool:
        try:
            while left or running:
                while left and len(running) < 2 * workers:
                    item = left.pop()
                    running[pool.submit(function, item)] = item
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    del running[future]
                    yield result
        except BrokenProcessPool:
            suspects.extend(running.values())
        finally:
            pool.shutdown(cancel_futures=True)


def _dask(function, items, compute, crashed, one_per_accelerator) -> Iterator:
    try:
        from distributed import CancelledError, Client, KilledWorker, as_completed
        from distributed.comm import connect
    except ImportError:
        raise ComputeError(
            "compute.backend: dask needs the package `distributed` here and on the workers: install this project's "
            "extra `dask`, or set compute.backend to processes"
        ) from None
    try:
        asyncio.run(_touch(connect, compute.address))
    except (OSError, ValueError) as error:
        raise ComputeError(
            f"compute.address: no Dask scheduler at {compute.address} ({error}); start one with `dask scheduler`, "
            "or set compute.backend to processes"
        ) from None
    guarded, resources = partial(_guarded, function), {"GPU": 1} if one_per_accelerator else {}
    with Client(compute.address) as client:
        threads = _fit_threads(client, compute.address, resources)

        def submit(item):
            future = client.submit(guarded, item, pure=False, resources=resources)
            item_of[future.key] = item
            return future

        left, suspects = iter(items), []
        item_of: dict = {}
        running = as_completed(map(submit, islice(left, max(MIN_AHEAD, 2 * threads))))
        try:
            for future in running:
                item = item_of.pop(future.key)
                try:
                    yield future.result()
                except KilledWorker:  # it, or one that was waiting at the same worker
                    suspects.append(item)
                running.update(map(submit, islice(left, 1)))
            for item in suspects:
                try:
                    yield submit(item).result()
                except KilledWorker:
                    yield crashed(item)
        except CancelledError:
            raise ComputeError(
                f"compute.address: the Dask scheduler at {compute.address} was lost; run again, what is done is kept"
            ) from None


async def _touch(connect, address: str) -> None:
    await (await connect(address)).close()


def _fit_threads(client, address: str, resources: dict[str, int]) -> int:
    """Wait for a worker with the resources; count such workers' threads. All workers must see the working folder."""
    end = time.monotonic() + WORKER_WAIT
    while True:
        workers = client.scheduler_info()["workers"].values()
        if threads := sum(w["nthreads"] for w in workers if resources.keys() <= w["resources"].keys()):
            break
        if time.monotonic() > end:
            wanted, option = ("worker with the resource GPU", " --resources GPU=1") if resources else ("worker", "")
            raise ComputeError(
                f"compute.address: no {wanted} at {address}; start one here with `dask worker {address}{option}`"
            )
        time.sleep(0.1)
    with tempfile.NamedTemporaryFile(prefix=".tmp-", dir=".") as token:
        seen = client.run(os.path.exists, Path(token.name).name, on_error="ignore")
    if elsewhere := sorted(worker for worker, sees in seen.items() if not sees):
        raise ComputeError(
            f"compute.address: the worker {elsewhere[0]} works in another folder; start it in {Path.cwd()}, "
            "on a file system that all workers share"
        )
    return threads


def _guarded(function, item):
    _end_when_hung()
    return function(item)


def _default_workers(one_per_accelerator: bool) -> int:
    if not one_per_accelerator:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    import torch

    return max(1, torch.cuda.device_count())


def _start_worker(workers: int, neural: bool, counter) -> None:
    """One thread per worker, one GPU per neural worker in turn; and no worker outlives the process that started it."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _end_when_hung()
    if neural:
        import torch

        with counter.get_lock():
            index, counter.value = counter.value, counter.value + 1
        if torch.cuda.is_available():
            torch.cuda.set_device(index % torch.cuda.device_count())
    if workers > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that the worker has yet to import
        cv2.setNumThreads(1)
        if loaded := sys.modules.get("torch"):
            loaded.set_num_threads(1)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@cache
def _end_when_hung() -> None:
    """From now on, end this process once FFmpeg hangs in it: the item then counts as one that took it down."""

    def watch() -> None:
        while longest_wait() < HUNG:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

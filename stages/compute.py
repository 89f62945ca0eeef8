"""Where items are worked on: the one place that knows. `params.compute` chooses; results are the same in every mode.

    for result in map_items(function, items, params.compute, "clips"): ...

`function` and its items must be picklable (a module's function, plain data); results come as they are finished.
Dask workers need this package, the stage's working folder as theirs (a shared file system), and one thread each; those
with a GPU say so (`--resources "GPU=1"`) and alone get the items that want one.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

import cv2
from tqdm import tqdm

from stages.params import Compute, ParamsError
from stages.tracking import note_throughput

MAIN_IS_PRELOADED = "ignore::RuntimeWarning:runpy"  # a stage that was started with -m runs in workers as a module too
Item = TypeVar("Item")
Result = TypeVar("Result")

SECONDS_FOR_A_WORKER = 30
GPU = "GPU"  # the name of the resource that a Dask worker offers


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
        crashed: What to yield for an item that takes its worker process down (a decoder's crash, out of memory).
        one_per_accelerator: With `compute.workers` null, run one process for each GPU, or a single one without a GPU,
            instead of one per core: for neural estimators. On Dask, only workers that offer the resource GPU get items.

    Raises:
        ParamsError: Dask cannot be had: not installed, no scheduler at `compute.address`, no worker of the kind needed.
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
    sys.warnoptions.append(MAIN_IS_PRELOADED)  # workers take it over
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
        from distributed import Client
    except ImportError:
        raise ParamsError(
            "params.yaml: compute.backend: dask needs the package `distributed`, here and on the workers: "
            "install the extra `dask`, or set compute.backend to processes"
        ) from None
    try:
        client = Client(compute.address)
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"params.yaml: compute.address: no Dask scheduler answers at {compute.address}: {error}; "
            "start one with: dask scheduler"
        ) from None
    with client:
        resources = {GPU: 1} if one_per_accelerator else {}
        _wait_for_a_worker(client, compute.address, resources)
        suspects: list = []
        yield from _dask_round(client, function, items, resources, suspects)
        for item in suspects:
            guilty: list = []
            yield from _dask_round(client, function, [item], resources, guilty)
            if guilty:
                yield crashed(item)


def _wait_for_a_worker(client, address: str, resources: dict[str, int]) -> None:
    """Wait while a worker starts, or starts anew after its death; Dask itself would wait for ever."""
    end = time.monotonic() + SECONDS_FOR_A_WORKER
    while True:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if any(worker["resources"].keys() >= resources.keys() for worker in workers):
            return
        if time.monotonic() >= end:
            break
        time.sleep(0.2)
    kind, option = (" that offers a GPU", f' --resources "{GPU}=1"') if resources else ("", "")
    raise ParamsError(
        f"params.yaml: compute.address: the Dask scheduler at {address} has no worker{kind}; "
        f"start one in this folder with: dask worker {address} --nthreads 1{option}"
    )


def _dask_round(client, function, items, resources, suspects: list) -> Iterator:
    """Work the items off. Those that were on workers that died, more often than the scheduler allows, are `suspects`:
    the guilty one, but also those that waited on the same workers.
    """
    from distributed import KilledWorker, as_completed

    futures = client.map(function, items, pure=False, resources=resources)
    item_of = {future.key: item for future, item in zip(futures, items, strict=True)}
    for future in as_completed(futures):
        try:
            yield future.result()
        except KilledWorker:
            suspects.append(item_of[future.key])


def _default_workers(one_per_accelerator: bool) -> int:
    if not one_per_accelerator:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    import torch

    return max(1, torch.cuda.device_count())


def _start_worker(workers: int, neural: bool, counter) -> None:
    """One thread per worker, one GPU per neural worker in turn; and no worker outlives the process that started it."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
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

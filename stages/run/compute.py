"""Where items are processed: in this process, in several, or on Dask. Results are the same in every mode.

    for result in map_items(function, items, params.compute, "clips"): ...

`params.compute` chooses the mode. `function` and its items must be picklable (a module's function, plain data).
Results come in order of completion. Dask workers need this package, the same working folder as the stage (a shared
file system), and one thread each. Workers with `--resources "GPU=1"` alone get the items that need a GPU.
"""

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
from tqdm import tqdm

from models.video.decode import STALLED, longest_wait
from stages.params import ComputeParams, ParamsError
from stages.run.timing import note_throughput

MAIN_IS_PRELOADED = "ignore::RuntimeWarning:runpy"  # a stage started with -m is imported again in its workers
Item = TypeVar("Item")
Result = TypeVar("Result")

HUNG = 2 * STALLED  # seconds that FFmpeg may spend on one frame; after that its process is ended
SECONDS_FOR_A_WORKER = 30
AHEAD = 64  # items submitted ahead, at least; more keeps workers busier, but more are repeated when one dies
GPU = "GPU"  # the name of the resource that a Dask worker offers


@dataclass(frozen=True)
class Work(Generic[Item, Result]):
    """What `map_items` is given; `neural`: its `one_per_accelerator`."""

    function: Callable[[Item], Result]
    items: Sequence[Item]
    compute: ComputeParams
    crashed: Callable[[Item], Result]
    neural: bool
    sharing: int


def map_items(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    compute: ComputeParams,
    title: str,
    crashed: Callable[[Item], Result],
    one_per_accelerator: bool = False,
    sharing: int = 1,
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order of completion, with a progress bar.

    Args:
        crashed: makes the result of an item that kills its worker process (a decoder that crashes or hangs, no memory).
        one_per_accelerator: for neural estimators. If `compute.workers` is null, there is one process for each GPU (or
            a single one without a GPU) instead of one for each core. On Dask, only workers with a GPU get items.
        sharing: processes that share a GPU then, at most, and no more in all than there are cores. It is for items that
            are mostly decoding and encoding, which cores do, so that the GPU does not wait for one core.

    Raises:
        ParamsError: Dask cannot be had: not installed, no scheduler at `compute.address` or no more, no worker of the
            kind needed, or one in another folder.
        Whatever `function` raises; work that has begun is finished, the rest is not started.
    """
    if not items:
        return
    start = time.monotonic()
    work = Work(function, items, compute, crashed, one_per_accelerator, sharing)
    results = {"serial": _serial, "processes": _processes, "dask": _dask}[compute.backend](work)
    yield from tqdm(results, total=len(items), desc=title, unit="item", disable=None)
    note_throughput(title, len(items), time.monotonic() - start)


class Done(NamedTuple, Generic[Result]):
    """The result of one item."""

    result: Result


class Suspect(NamedTuple, Generic[Item]):
    """An item that was open when its worker died: perhaps the one that killed it, perhaps an innocent neighbour."""

    item: Item


Outcome = Done[Result] | Suspect[Item]
"""What becomes of an item in one round of work."""


def _serial(work: Work[Item, Result]) -> Iterator[Result]:
    return map(work.function, work.items)


def _processes(work: Work[Item, Result]) -> Iterator[Result]:
    workers = min(len(work.items), work.compute.workers or _default_workers(work.neural, work.sharing))
    pool = partial(_pool, work.function, work.neural)
    left = list(work.items)
    while left:
        tried, suspects = 0, []
        for outcome in pool(left, workers):
            tried += 1
            if isinstance(outcome, Suspect):
                suspects.append(outcome.item)
            else:
                yield outcome.result
        left = left[tried:]
        yield from _alone(suspects, lambda item: pool([item], 1), work.crashed)


def _alone(
    suspects: Sequence[Item],
    attempt: Callable[[Item], Iterator[Outcome[Result, Item]]],
    crashed: Callable[[Item], Result],
) -> Iterator[Result]:
    """Each suspect by itself: its result, or that of a crash if it kills its worker again."""
    for item in suspects:
        for outcome in attempt(item):
            yield outcome.result if isinstance(outcome, Done) else crashed(item)


def _pool(
    function: Callable[[Item], Result], neural: bool, items: Sequence[Item], workers: int
) -> Iterator[Outcome[Result, Item]]:
    """One pool of processes, until all items are done or a worker dies. The first items of `items` are tried first."""
    sys.warnoptions.append(MAIN_IS_PRELOADED)  # workers take it over
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stages.run.compute", function.__module__])  # imported once, not once per worker
    left, running = deque(items), dict[Future[Result], Item]()
    with ProcessPoolExecutor(workers, context, _start_worker, (workers, neural, context.Value("i", 0))) as pool:
        try:
            while left or running:
                while left and len(running) < 2 * workers:
                    running[pool.submit(function, left[0])] = left[0]  # raises if the pool broke; the item is left
                    left.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    del running[future]
                    yield Done(result)
        except BrokenProcessPool:
            yield from (Suspect(item) for item in running.values())
        finally:
            pool.shutdown(cancel_futures=True)


def _dask(work: Work[Item, Result]) -> Iterator[Result]:
    try:
        from distributed import CancelledError, Client
    except ImportError:
        raise ParamsError(
            "params.yaml: compute.backend: dask needs the package `distributed`, here and on the workers: "
            "install the extra `dask`, or set compute.backend to processes"
        ) from None
    address = str(work.compute.address)
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"params.yaml: compute.address: no Dask scheduler answers at {address}: {error}; "
            "start one with: dask scheduler"
        ) from None
    with client:
        resources = {GPU: 1} if work.neural else {}
        ahead = max(AHEAD, 2 * _wait_for_workers(client, address, resources))
        submit = partial(client.submit, partial(_guarded, work.function), pure=False, resources=resources)
        suspects: list[Item] = []
        try:
            for outcome in _dask_round(submit, work.items, ahead):
                if isinstance(outcome, Suspect):
                    suspects.append(outcome.item)
                else:
                    yield outcome.result
            yield from _alone(suspects, lambda item: _dask_round(submit, [item], 1), work.crashed)
        except CancelledError:
            raise ParamsError(
                f"params.yaml: compute.address: the Dask scheduler at {address} went away; what was done is "
                "kept: start it and run again"
            ) from None


def _wait_for_workers(client: Any, address: str, resources: dict[str, int]) -> int:
    """Wait until a worker has started or restarted (Dask would wait for ever), and return the number of threads."""
    end = time.monotonic() + SECONDS_FOR_A_WORKER
    while True:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if threads := sum(w["nthreads"] for w in workers if w["resources"].keys() >= resources.keys()):
            break
        if time.monotonic() >= end:
            kind, option = (" that offers a GPU", f' --resources "{GPU}=1"') if resources else ("", "")
            raise ParamsError(
                f"params.yaml: compute.address: the Dask scheduler at {address} has no worker{kind}; "
                f"start one in this folder with: dask worker {address} --nthreads 1{option}"
            )
        time.sleep(0.2)
    with tempfile.NamedTemporaryFile(prefix=".tmp-", dir=".") as file:
        seen = client.run(os.path.exists, Path(file.name).name, on_error="ignore")
    if elsewhere := sorted(worker for worker, sees in seen.items() if not sees):
        raise ParamsError(
            f"params.yaml: compute.address: the Dask worker {elsewhere[0]} works in another folder; start it in "
            f"{Path.cwd()}, which all machines must share"
        )
    return threads


def _dask_round(submit: Callable[[Item], Any], items: Sequence[Item], ahead: int) -> Iterator[Outcome[Any, Item]]:
    """All items, `ahead` of them submitted at once. Items whose worker died too often are suspects."""
    from distributed import KilledWorker, as_completed

    left, item_of = iter(items), dict[str, Item]()

    def begin(count: int) -> list[Any]:
        begun = [(submit(item), item) for item in islice(left, count)]
        item_of.update({future.key: item for future, item in begun})
        return [future for future, _ in begun]

    running = as_completed(begin(ahead))
    for future in running:
        item = item_of.pop(future.key)
        try:
            yield Done(future.result())
        except KilledWorker:
            yield Suspect(item)
        running.update(begin(1))


def _guarded(function: Callable[[Item], Result], item: Item) -> Result:
    _end_when_hung()
    return function(item)


def _default_workers(one_per_accelerator: bool, sharing: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not one_per_accelerator:
        return cores
    import torch

    accelerators = torch.cuda.device_count()
    return max(1, accelerators, min(cores, accelerators * sharing))


def _start_worker(workers: int, neural: bool, counter: Any) -> None:
    """Give a worker one thread, and a neural worker a GPU. The worker ends with the process that started it."""
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
    """From now on, end this process if FFmpeg hangs in it. Its item then counts as the one that killed the worker."""

    def watch() -> None:
        while longest_wait() < HUNG:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""Work in several processes whose results come in the order of the work."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from caprag.errors import CapragError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Waiting items for each process: enough that none is idle, few enough to hold in memory.
_AHEAD = 2


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Apply a function to each item, and yield the results in the order of the items.

    Parameters
    ----------
    function
        A function of a module, or a `functools.partial` of one: it is sent to other processes.
    items
        Drawn as they are needed, a few ahead.
    workers
        Number of processes, >= 1; for one, or for a single item, no other process is started.

    Raises
    ------
    CapragError
        Where a process ended before its work was done.
    """
    waiting_items = iter(items)
    first = list(itertools.islice(waiting_items, 2))
    if workers == 1 or len(first) < 2:
        yield from map(function, itertools.chain(first, waiting_items))
        return
    # Not fork: the libraries of the calling process may have threads.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    pending: deque[Future[Result]] = deque()
    try:
        for item in itertools.chain(first, waiting_items):
            with _interrupts_held():
                pending.append(pool.submit(function, item))
            if len(pending) > workers * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise CapragError(
            "a worker process ended before its work was done: it was killed, or ran out of memory, or the program that "
            'called has no `if __name__ == "__main__":` around its start; try one worker (workers=1, --workers 1)'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep interrupts from processes that are started here: the one that starts them is told, and ends the rest."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)

"""Work in several processes whose results come in the order of the work.

Each process has a pipe of its own and gets every n-th item, so that nothing is shared that an interrupt or a killed
process could leave locked.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from caprag.errors import CapragError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items that each process has before it: enough that none is idle, few enough to hold in memory.
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
    Exception
        What the function raises.
    """
    rest = iter(items)
    first = list(itertools.islice(rest, 2))
    if workers == 1 or len(first) < 2:
        yield from map(function, itertools.chain(first, rest))
        return
    pool = _Pool(function)
    try:
        sent = received = 0
        for item in itertools.chain(first, rest):
            if sent - received == workers * _AHEAD:
                yield pool.receive(received % workers)
                received += 1
            if sent < workers:
                pool.start()
            pool.send(sent % workers, item)
            sent += 1
        while received < sent:
            yield pool.receive(received % workers)
            received += 1
    finally:
        pool.end()


class _Pool:
    def __init__(self, function: Callable[..., object]) -> None:
        # It would let interrupts in again if it were begun with the first process.
        resource_tracker.ensure_running()
        # Not fork: the libraries of the calling process may have threads.
        self._context = multiprocessing.get_context("spawn")
        self._function = function
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def start(self) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._function, there), daemon=True)
        with _interrupts_held():
            process.start()
            self._workers.append((process, here))
        there.close()

    def send(self, number: int, item: object) -> None:
        with self._told_of_end():
            self._workers[number][1].send(item)

    def receive(self, number: int) -> Result:  # type: ignore[type-var]
        with self._told_of_end():
            done, result = self._workers[number][1].recv()
        if not done:
            raise result
        return result  # type: ignore[no-any-return]

    @contextmanager
    def _told_of_end(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise CapragError(
                "a worker process ended before its work was done: it was killed, or ran out of memory, or the program "
                'that called has no `if __name__ == "__main__":` around its start; '
                "try one worker (workers=1, --workers 1)"
            ) from error

    def end(self) -> None:
        with _interrupts_held():
            for process, pipe in self._workers:
                process.kill()
                pipe.close()
            for process, _ in self._workers:
                process.join()
                process.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let no interrupt come between, nor to the processes that are started here: who starts them will end them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[Item], object], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    items: queue.SimpleQueue[Item] = queue.SimpleQueue()

    def receive() -> None:
        # All the time, so that neither side waits for the other to read; and the end of the pipe is the parent's.
        try:
            while True:
                items.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        item = items.get()
        try:
            answer: tuple[bool, object] = (True, function(item))
        except Exception as error:  # it is raised in the parent
            answer = (False, error)
        pipe.send(answer)

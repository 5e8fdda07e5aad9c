"""An ordered map over processes: bounded memory, first error raised, clean on Ctrl-C."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """`map(function, items)` on `processes` spawned processes, results in order, at most 4 items a process in flight.

    One process or fewer means this one. Functions and items travel by pickle, so both must be importable.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    # Forking a process that runs threads (Rust, OpenMP, Arrow) can deadlock, so workers start afresh.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        flight: deque[Future[R]] = deque()
        try:
            for item in items:
                flight.append(pool.submit(function, item))
                if len(flight) >= 4 * processes:
                    yield flight.popleft().result()
            while flight:
                yield flight.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

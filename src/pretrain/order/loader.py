"""Reads batches ahead in threads; its only state is the position."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from pretrain.order.batch import Batch, Data

FETCH_AHEAD = 4096  # positions before a row is read, its shard is asked for


class Loader:
    """Batches of `rows` rows from `position` on, in order, at most `ahead` in memory; a context that ends the threads.

    Shards are fetched, held against their checks and read in the threads; what goes wrong there is raised here, in its
    turn. `waited` counts the seconds for which the consumer stood still.
    """

    def __init__(self, data: Data, position: int, rows: int, *, ahead: int = 4, threads: int = 2) -> None:
        self.data, self.position, self.rows = data, position, rows
        self.waited = 0.0
        self._pool = ThreadPoolExecutor(threads, "loader")
        self._flight: deque[Future[Batch]] = deque()
        for _ in range(ahead):
            self._submit()

    def _submit(self) -> None:
        self._flight.append(self._pool.submit(self._read, self.position))
        self.position += self.rows

    def _read(self, position: int) -> Batch:
        self.data.ahead(position + FETCH_AHEAD, self.rows)
        return self.data.batch(position, self.rows)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = self._flight.popleft().result()
            self.waited += time.perf_counter() - start
            self._submit()
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

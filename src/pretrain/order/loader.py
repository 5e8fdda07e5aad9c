"""Reads batches ahead in threads; its only state is the position."""

import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from pretrain.order.batch import Batch, Data

FETCH_AHEAD = 4096  # positions before a row is read, its shard is asked for


class Loader:
    """Batches of `rows` rows from `position` on, in order, at most `ahead` of each thread in memory; a context.

    Of n threads each reads every n-th batch, so that the order is theirs. Shards are fetched, held against their checks
    and read in the threads; what goes wrong there is raised here, in its turn. `waited` counts the seconds for which
    the consumer stood still. `share` (rank, of ranks) takes every so manyth row of a batch.
    """

    def __init__(
        self,
        data: Data,
        position: int,
        rows: int,
        *,
        ahead: int = 2,
        threads: int = 2,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.waited, self._share = 0.0, share
        self._ready = [SimpleQueue[Batch | BaseException]() for _ in range(threads)]
        self._room = [SimpleQueue[bool]() for _ in range(threads)]  # a True a batch to read, and False to end
        self._threads = [
            threading.Thread(
                target=self._read, args=(data, position + i * rows, rows, i), name=f"loader-{i}", daemon=True
            )
            for i in range(threads)
        ]
        for room, thread in zip(self._room, self._threads, strict=True):
            for _ in range(ahead):
                room.put(True)
            thread.start()

    def _read(self, data: Data, position: int, rows: int, number: int) -> None:
        room, ready = self._room[number], self._ready[number]
        try:
            while room.get():
                data.ahead(position + FETCH_AHEAD, rows)
                ready.put(data.batch(position, rows, *self._share))
                position += rows * len(self._room)
        except BaseException as error:  # whatever it is, it is the consumer's to see
            ready.put(error)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            for ready, room in zip(self._ready, self._room, strict=True):
                start = time.perf_counter()
                batch = ready.get()
                self.waited += time.perf_counter() - start
                if isinstance(batch, BaseException):
                    raise batch
                room.put(True)
                yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for room in self._room:
            for _ in range(room.qsize()):
                room.get()
            room.put(False)
        for thread in self._threads:
            thread.join()

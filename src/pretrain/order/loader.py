"""Reads batches ahead in a thread; its only state is the position."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Self

from pretrain.order.batch import Batch, Data


class Loader:
    """Batches of `rows` rows from `position` on, at most `ahead` in memory; a context that ends the thread."""

    def __init__(self, data: Data, position: int, rows: int, *, ahead: int = 2) -> None:
        self._queue: Queue[Batch | BaseException] = Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(data, position, rows), daemon=True)
        self._thread.start()

    def _read(self, data: Data, position: int, rows: int) -> None:
        try:
            while not self._stop.is_set():
                self._put(data.batch(position, rows))
                position += rows
        except BaseException as error:  # whatever it is, it is the consumer's to see
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except Full:
                continue

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with suppress(Empty):
            self._queue.get_nowait()
        self._thread.join()

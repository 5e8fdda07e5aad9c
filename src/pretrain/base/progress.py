"""Progress of work that is counted: a live line on a terminal, a plain line now and then in a pipe."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from pretrain.base.units import show_count, show_seconds

TERMINAL_SECONDS, PIPE_SECONDS = 0.1, 5.0


class Progress:
    """Counts towards `total` (None: not known) in `unit`, drawn on standard error.

    Used as a context: `with Progress("reading", 120, unit="files") as progress: progress.advance(1)`.
    """

    def __init__(self, label: str, total: int | None = None, *, unit: str = "", stream: TextIO | None = None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.stream = stream or sys.stderr
        self.done = 0
        self._live = self.stream.isatty()
        self._start = self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=self.stream, flush=True)

    def advance(self, count: int = 1) -> None:
        """Adds to what is done and draws, if it is time to."""
        self.done += count
        now = time.monotonic()
        if now - self._drawn < (TERMINAL_SECONDS if self._live else PIPE_SECONDS):
            return
        self._drawn = now
        print(
            f"\r\x1b[K{self}" if self._live else str(self), end="" if self._live else "\n", file=self.stream, flush=True
        )

    def __str__(self) -> str:
        seconds = time.monotonic() - self._start
        of = f" of {show_count(self.total)}" if self.total else ""
        left = (
            f", {show_seconds(seconds / self.done * (self.total - self.done))} left" if self.total and self.done else ""
        )
        return f"{self.label}: {show_count(self.done)}{of} {self.unit}".rstrip() + left

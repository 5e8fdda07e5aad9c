"""Where the time of training goes: marks between its parts, on the clock of the device that does the work."""

import time
from collections import defaultdict

import torch

Mark = float | torch.cuda.Event


class Clock:
    """Seconds by part since they were last read; what lies between two marks is the later one's part.

    On a GPU a mark is an event of the stream, so that nothing waits for it: its time is read when it has passed.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._marks: list[tuple[str, Mark]] = [("", self._now())]

    def mark(self, part: str) -> None:
        """The time since the mark before was this part's."""
        self._marks.append((part, self._now()))

    def read(self) -> dict[str, float]:
        """Seconds by part, from the last reading to the last mark; waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for (_, start), (part, end) in zip(self._marks, self._marks[1:], strict=False):
            seconds[part] += _between(start, end)
        self._marks = self._marks[-1:]
        return dict(seconds)

    def _now(self) -> Mark:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(start: Mark, end: Mark) -> float:
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        return start.elapsed_time(end) / 1000
    assert isinstance(end, float)
    return end - start

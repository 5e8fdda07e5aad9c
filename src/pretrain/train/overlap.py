"""How much of a step is communication, and how much of that nothing hides: read from a profile of the step."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Span = tuple[int, int]  # nanoseconds: in whole numbers no part is longer than the whole
T = TypeVar("T")


class Communication(NamedTuple):
    """Shares of a step's time in which ranks speak; and in which they speak and nothing else is computed."""

    all: float
    exposed: float


def measured(step: Callable[[], T], device: str) -> tuple[T, Communication]:
    """A step, taken once, and what it was."""
    gpu = device == "cuda"
    found = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])])
    with quiet():
        found.start()
    try:
        out = step()
    finally:
        with quiet():
            found.stop()
    events = list(found.events() or [])
    spans = [(event.name, _span(event.time_range.start, event.time_range.end)) for event in events]
    if gpu:
        kernels = [span for event, span in zip(events, spans, strict=True) if event.device_type == DeviceType.CUDA]
        speaks = [span for name, span in kernels if name.startswith("nccl")]
        computes = [span for name, span in kernels if not name.startswith("nccl")]
    else:
        speaks = [span for name, span in spans if name.startswith("gloo:")]
        computes = [span for name, span in spans if name.startswith("aten::")]
    every = [span for _, span in spans]
    length = max(end for _, end in every) - min(start for start, _ in every)
    exposed = total([*speaks, *computes]) - total(computes)
    return out, Communication(total(speaks) / length, exposed / length)


def _span(start: float, end: float) -> Span:
    """Of microseconds."""
    return round(1000 * start), round(1000 * end)


def total(spans: Iterable[Span]) -> int:
    """Time that at least one of them covers."""
    ordered, covered = sorted(spans), 0
    reached = ordered[0][0] if ordered else 0
    for start, end in ordered:
        covered += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return covered


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's profiler says on standard error each time."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

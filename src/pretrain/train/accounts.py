"""What a step event says of time and energy, and at times how much of a step was ranks speaking."""

from collections.abc import Callable
from typing import TypedDict, TypeVar

from pretrain.events.kinds import Communication, Event
from pretrain.parallel.apply import Ranks
from pretrain.parallel.launch import here
from pretrain.train.clock import Clock
from pretrain.train.energy import Energy, counters
from pretrain.train.overlap import measured
from pretrain.train.watchdog import numbers

FIRST, EVERY = 5, 1000  # which of the steps of a process are profiled, where there are several ranks
T = TypeVar("T")


class Spent(TypedDict):
    """Fields of a step event."""

    parts: dict[str, float]
    energy_joules: float | None


class Accounts:
    """Of one process of a run; all ranks have one and call the same."""

    def __init__(self, clock: Clock, ranks: Ranks, device: str, report: Callable[[Event], None]) -> None:
        self.clock, self._ranks, self._device, self._report = clock, ranks, device, report
        self._energy = Energy(counters(device, first_here=ranks.number % here() == 0))
        self._any = ranks.any(self._energy.there)
        self._taken = 0

    def take(self, step: Callable[[], T], number: int) -> T:
        """A step, which is this one's number, as it is or in a profile."""
        self.clock.mark("data")
        self._taken += 1
        if self._ranks.alone or self._taken % EVERY != FIRST:
            return step()
        out, spoken = measured(step, self._device)
        self._report(Communication(number, spoken.all, spoken.exposed))
        return out

    def spent(self) -> Spent:
        """Since it was last asked."""
        seconds = self.clock.read()
        whole = sum(seconds.values()) or 1.0
        joules = self._energy.read() or 0.0
        if self._any and not self._ranks.alone:
            joules = sum(numbers(self._ranks, joules))
        parts = {name: round(part / whole, 4) for name, part in seconds.items()}
        return {"parts": parts, "energy_joules": joules if self._any else None}

"""Units of work, what a worker notes while it is at one, and when a unit is tried again.

A task reads files and writes files; it may die with its process at any moment. It therefore notes at which record it
is, in a file that outlives it. A record that took its worker down twice is left out of the third attempt.
"""

import os
import struct
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pretrain.base.errors import UserError

Spot = tuple[int, int, int]  # number of the file, of the item in it, of the phase: where a worker is
NOWHERE: Spot = (-1, -1, -1)
_SPOT = struct.Struct("<3q")
DEATHS = 2  # of its worker that a record is granted
ATTEMPTS = 3  # at a unit without a record to blame


@dataclass(frozen=True)
class Task:
    """A call of an importable function with plain arguments; it gets a Journal as its last one."""

    name: str
    function: Callable[..., object]
    arguments: tuple
    gpu: bool = False  # whether it is to run where there is one


@dataclass(frozen=True)
class Failure:
    """A unit that was set aside: what failed in the end, and where its worker was."""

    task: Task
    reason: str
    spot: Spot


class Journal:
    """Where a worker is, on disk: 24 bytes, overwritten at every record."""

    def __init__(self, path: Path | None = None, avoid: Sequence[Spot] = ()) -> None:
        self._avoid = frozenset(avoid)
        self._file = -1 if path is None else os.open(path, os.O_RDWR | os.O_CREAT)

    def at(self, file: int, item: int = 0, phase: int = 0) -> bool:
        """Notes a spot and returns whether to go on there: False where a worker died twice."""
        if self._file >= 0:
            os.pwrite(self._file, _SPOT.pack(file, item, phase), 0)
        return (file, item, phase) not in self._avoid

    def close(self) -> None:
        """Lets go of the file."""
        if self._file >= 0:
            os.close(self._file)


def spot_in(path: Path) -> Spot:
    """What a worker noted last."""
    try:
        return _SPOT.unpack(path.read_bytes())
    except (OSError, struct.error):
        return NOWHERE


@dataclass
class Attempts:
    """What became of a unit so far, and what to do next."""

    task: Task
    deaths: Counter = field(default_factory=Counter)
    errors: int = 0

    @property
    def avoid(self) -> list[Spot]:
        """Spots that the next attempt leaves out."""
        return sorted(spot for spot, times in self.deaths.items() if times >= DEATHS and spot != NOWHERE)

    def died(self, spot: Spot, why: str) -> Failure | None:
        """Notes that the worker is gone; a Failure if the unit is not to be tried again."""
        self.deaths[spot] += 1
        hopeless = self.deaths[spot] > DEATHS if spot != NOWHERE else self.deaths[spot] >= ATTEMPTS
        return Failure(self.task, why, spot) if hopeless else None

    def failed(self, why: str, spot: Spot) -> Failure | None:
        """Notes an error that the task raised; a Failure if the unit is not to be tried again."""
        self.errors += 1
        return Failure(self.task, why, spot) if self.errors >= ATTEMPTS else None


def perform(task: Task, path: Path | None, avoid: Sequence[Spot]) -> tuple[str, object]:
    """("done", result), ("wrong", UserError) or ("failed", the error with its traceback)."""
    journal = Journal(path, avoid)
    try:
        return "done", task.function(*task.arguments, journal)
    except UserError as error:
        return "wrong", error
    except Exception:
        return "failed", traceback.format_exc(limit=-6)
    finally:
        journal.close()


def settle(attempts: Attempts, kind: str, value: object, spot: Spot) -> "tuple[object | Failure] | None":
    """The result of a unit, in a tuple, or None if it is to be tried again. Raises the user's mistake."""
    if kind == "wrong":
        assert isinstance(value, UserError), "what perform says"
        raise value
    if kind == "failed":
        failure = attempts.failed(str(value), spot)
        return None if failure is None else (failure,)
    return (value,)


class Pool(Protocol):
    """Workers that wait for tasks."""

    def run(
        self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda number: None
    ) -> list[object | Failure]:
        """The results in the order of the tasks; `advance` hears of each one's number as it ends. Raises UserError."""
        ...


class Engine(Protocol):
    """A leaf of `corpus/engine`."""

    def open(self, scratch: Path) -> AbstractContextManager[Pool]:
        """Starts workers; `scratch` is a folder for what they note."""
        ...

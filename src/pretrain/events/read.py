"""Reads a run's events: merged over ranks, followed while they are written, and steps as they finally stood."""

import heapq
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Step, from_json

E = TypeVar("E", bound=Event)


def read(run: RunDirectory) -> Iterator[Event]:
    """All events of all ranks in the order of their times; a torn last line (its writer was killed) is left out."""
    return heapq.merge(
        *(_lines(path) for path in sorted(run.events.glob("rank-*.jsonl"))), key=lambda event: event.time
    )


def _lines(path: Path) -> Iterator[Event]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and (event := from_json(json.loads(line))) is not None:
                yield event


def follow(run: RunDirectory, wait: Callable[[], bool]) -> Iterator[Event]:
    """All events so far, then those to come; `wait` is called where there is nothing new, and ends it with False.

    Only whole lines are read, so neither one being written nor a torn one that its next writer cuts is ever seen.
    """
    read_bytes: dict[Path, int] = {}
    while True:
        fresh: list[Event] = []
        for path in sorted(run.events.glob("rank-*.jsonl")):
            with path.open("rb") as file:
                file.seek(read_bytes.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    read_bytes[path] = read_bytes.get(path, 0) + len(line)
                    if (event := from_json(json.loads(line))) is not None:
                        fresh.append(event)
        yield from sorted(fresh, key=lambda event: event.time)
        if not fresh and not wait():
            return


def all_of(run: RunDirectory, kind: type[E]) -> list[E]:
    """Every event of a kind."""
    return [event for event in read(run) if isinstance(event, kind)]


def last(run: RunDirectory, kind: type[E]) -> E | None:
    """The newest event of a kind."""
    return next(reversed(all_of(run, kind)), None)


def steps(run: RunDirectory) -> list[Step]:
    """The steps that the weights went through: where a resumed run took some again, the later ones stand."""
    taken: list[Step] = []
    for step in all_of(run, Step):
        while taken and taken[-1].step >= step.step:
            taken.pop()
        taken.append(step)
    return taken

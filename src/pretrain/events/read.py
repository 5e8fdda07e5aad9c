"""Reads a run's events: merged over ranks, and steps as they finally stood."""

import heapq
import json
from collections.abc import Iterator
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

"""A Ray cluster (Moritz et al. 2018, arXiv 1712.05889): core actors, one unit at a time each; files do the rest.

The store, the sources and `pretrain` itself must be at the same paths on every node. Nothing of Ray's is relied on to
survive: what is lost with an actor, a node or the driver is a unit that has no file yet.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.base.optional import extra
from pretrain.corpus.task import NOWHERE, Attempts, Failure, Pool, Spot, Task, perform, settle, spot_in
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Ray:
    """`address` of a cluster ("auto": this node's; none: one is started here), `workers` at once, `gpus` for each."""

    address: str | None = None
    workers: int | None = key("at once", None, at_least=1)
    gpus: float = key("for each worker", 0.0, at_least=0)
    record_seconds: float = key("after which a record is given up", 120.0, at_least=0)

    @contextmanager
    def open(self, scratch: Path) -> Iterator[Pool]:
        """Actors for tasks."""
        library = extra("ray", "ray")
        mine = not library.is_initialized()
        if mine:
            library.init(address=self.address, logging_level="error", log_to_driver=False, include_dashboard=False)
        pool = _Actors(library, self, scratch)
        try:
            yield pool
        finally:
            pool.close()
            if mine:
                library.shutdown()


@dataclass(eq=False)
class _Actor:
    """A remote worker and the unit that it is at."""

    handle: Any
    journal: Path
    number: int | None = None
    running: Any = None
    seen: tuple[Spot, float] = field(default_factory=lambda: (NOWHERE, time.monotonic()))


class _Remote:
    """What runs on a node."""

    def work(self, task: Task, journal: Path, avoid: Sequence[Spot]) -> tuple[str, object]:
        return perform(task, journal, avoid)


class _Actors:
    def __init__(self, library: Any, options: Ray, scratch: Path) -> None:
        self.library, self.options, self.scratch = library, options, scratch
        self.count = options.workers or max(1, int(library.cluster_resources().get("CPU", 1)))
        self.remote = library.remote(num_cpus=1, num_gpus=options.gpus, max_restarts=0)(_Remote)
        self.actors: list[_Actor] = []
        self._made = 0

    def close(self) -> None:
        for actor in self.actors:
            self._end(actor)

    def run(
        self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda number: None
    ) -> list[object | Failure]:
        attempts, waiting = [Attempts(task) for task in tasks], deque(range(len(tasks)))
        results: list[object | Failure] = [None] * len(tasks)
        while waiting or any(actor.number is not None for actor in self.actors):
            self._feed(waiting, attempts)
            busy = [actor for actor in self.actors if actor.number is not None]
            self.library.wait([actor.running for actor in busy], num_returns=1, timeout=1.0)
            for actor in busy:
                number = actor.number
                assert number is not None, "it is busy"
                outcome = self._hear(actor, attempts[number])
                if outcome is not None:
                    results[number] = outcome[0]
                    advance(number)
                elif actor.number is None:
                    waiting.appendleft(number)
        return results

    def _feed(self, waiting: deque[int], attempts: list[Attempts]) -> None:
        idle = [actor for actor in self.actors if actor.number is None]
        while waiting and (idle or len(self.actors) < self.count):
            if not idle:
                self._made += 1
                path = self.scratch / f"ray-{os.getpid()}-{self._made}.at"
                self.actors.append(_Actor(self.remote.remote(), path))
                idle.append(self.actors[-1])
            actor, number = idle.pop(), waiting.popleft()
            actor.journal.unlink(missing_ok=True)
            actor.number, actor.seen = number, (NOWHERE, time.monotonic())
            actor.running = actor.handle.work.remote(attempts[number].task, actor.journal, attempts[number].avoid)

    def _hear(self, actor: _Actor, attempts: Attempts) -> "tuple[object | Failure] | None":
        """What a busy actor has come to; afterwards its `number` is None unless it is still at it."""
        ready, _ = self.library.wait([actor.running], timeout=0)
        if ready:
            try:
                kind, value = self.library.get(actor.running)
                actor.number = None
                return settle(attempts, kind, value, spot_in(actor.journal))
            except self.library.exceptions.RayError as error:
                why = f"its worker died ({type(error).__name__})"
        else:
            now, spot = time.monotonic(), spot_in(actor.journal)
            if spot != actor.seen[0]:
                actor.seen = (spot, now)
            if spot == NOWHERE or now - actor.seen[1] < self.options.record_seconds:
                return None
            why = f"took longer than {self.options.record_seconds:g} s"
        spot = spot_in(actor.journal)
        self._end(actor)
        self.actors.remove(actor)
        actor.number = None
        failure = attempts.died(spot, why)
        return None if failure is None else (failure,)

    def _end(self, actor: _Actor) -> None:
        with suppress(self.library.exceptions.RayError):
            self.library.kill(actor.handle)
        actor.journal.unlink(missing_ok=True)

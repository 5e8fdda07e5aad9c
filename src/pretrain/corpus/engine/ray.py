"""A Ray cluster (Moritz et al. 2018, arXiv 1712.05889): core actors, one unit at a time each; files do the rest.

The store, the sources and `pretrain` itself must be at the same paths on every node. Nothing of Ray's is relied on to
survive: what is lost with an actor, a node or the driver is a unit that has no file yet.
"""

import os
import re
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.base.errors import UserError
from pretrain.base.optional import extra
from pretrain.base.units import seconds, size
from pretrain.corpus.task import NOWHERE, Attempts, Failure, Pool, Spot, Task, perform, settle, spot_in
from pretrain.recipe.schema import key

CONNECT_SECONDS = 30


@dataclass(frozen=True)
class Ray:
    """Workers on the nodes of a cluster, each with its memory and, for steps that say `gpu = True`, GPUs."""

    address: str = key('of a cluster; "auto" is this node\'s, "local" starts one here', "local")
    workers: int | None = key("at once; one a core of the cluster if not said", None, at_least=1)
    gpus: float = key("of each worker at a step that uses them", 1.0, at_least=0)
    memory_bytes: int = key("that a worker may take", 4 * 2**30, unit=size, at_least=1)
    record_seconds: float = key("that a record may take", 120.0, unit=seconds, at_least=0)

    @contextmanager
    def open(self, scratch: Path) -> Iterator[Pool]:
        """Actors for tasks."""
        library = extra("ray", "ray")
        mine = not library.is_initialized()
        if mine:
            _answers(self.address)
            library.init(address=self.address, logging_level="error", log_to_driver=False, include_dashboard=False)
        pool = _Actors(library, self, scratch)
        try:
            yield pool
        finally:
            pool.close()
            if mine:
                library.shutdown()


def _answers(address: str) -> None:
    """Raises UserError where no cluster answers; Ray itself waits for minutes."""
    if address == "local" or address.startswith("ray://"):
        return
    command = [sys.executable, "-m", "ray.scripts.scripts", "status"]
    command += [] if address == "auto" else ["--address", address]
    try:
        answers = subprocess.run(command, capture_output=True, timeout=CONNECT_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        answers = False
    if not answers:
        raise UserError(
            "no Ray cluster answers", where=f"corpus.engine.address = {address!r}", expected="one that runs"
        )


@dataclass(eq=False)
class _Actor:
    """A remote worker and the unit that it is at."""

    handle: Any
    journal: Path
    gpu: bool
    number: int | None = None
    running: Any = None
    seen: tuple[Spot, float] = field(default_factory=lambda: (NOWHERE, time.monotonic()))


class _Remote:
    """What runs on a node."""

    def __init__(self, memory: int) -> None:
        taken = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024  # by Ray itself
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (taken + memory, taken + memory))

    def work(self, task: Task, journal: Path, avoid: Sequence[Spot]) -> tuple[str, object]:
        return perform(task, journal, avoid)


class _Actors:
    def __init__(self, library: Any, options: Ray, scratch: Path) -> None:
        self.library, self.options, self.scratch = library, options, scratch
        self.count = options.workers or max(1, int(library.cluster_resources().get("CPU", 1)))
        self.remote = library.remote(num_cpus=1, max_restarts=0)(_Remote)
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
        while waiting:
            number, idle = waiting[0], [actor for actor in self.actors if actor.number is None]
            gpu = attempts[number].task.gpu
            actor = next((one for one in idle if one.gpu == gpu), None)
            if actor is None and len(self.actors) >= self.count:
                if not idle:
                    return
                self._end(idle[0])  # it makes room for one of the other kind
                self.actors.remove(idle[0])
            actor = actor or self._start(gpu)
            waiting.popleft()
            actor.journal.unlink(missing_ok=True)
            actor.number, actor.seen = number, (NOWHERE, time.monotonic())
            actor.running = actor.handle.work.remote(attempts[number].task, actor.journal, attempts[number].avoid)

    def _start(self, gpu: bool) -> _Actor:
        self._made += 1
        path = self.scratch / f"ray-{os.getpid()}-{self._made}.at"
        made = self.remote.options(num_gpus=self.options.gpus if gpu else 0)
        self.actors.append(_Actor(made.remote(self.options.memory_bytes), path, gpu))
        return self.actors[-1]

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

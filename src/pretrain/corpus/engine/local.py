"""Processes of this machine: started when first needed, replaced when they die, killed when they hang."""

import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pretrain.corpus.task import NOWHERE, Attempts, Failure, Pool, Spot, Task, perform, settle, spot_in
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Local:
    """`processes` (0: this one; not said: one a core), each with its memory, each record with its time."""

    processes: int | None = key("workers; 0: this process, not said: one a core", None, at_least=0)
    memory_bytes: int = key("of a worker", 4 * 2**30, at_least=1)
    record_seconds: float = key("after which a record is given up", 120.0, at_least=0)

    @contextmanager
    def open(self, scratch: Path) -> Iterator[Pool]:
        """Workers for tasks."""
        processes = len(os.sched_getaffinity(0)) if self.processes is None else self.processes
        pool = _Processes(processes, self.memory_bytes, self.record_seconds, scratch) if processes else _Here()
        try:
            yield pool
        finally:
            if isinstance(pool, _Processes):
                pool.close()


class _Here:
    """Tasks one after the other in this process."""

    def run(
        self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda number: None
    ) -> list[object | Failure]:
        results: list[object | Failure] = []
        for number, task in enumerate(tasks):
            attempts, outcome = Attempts(task), None
            while outcome is None:
                outcome = settle(attempts, *perform(task, None, ()), NOWHERE)
            results.append(outcome[0])
            advance(number)
        return results


class _Worker:
    """A process and the unit that it is at."""

    def __init__(self, memory: int, journal: Path) -> None:
        ours, theirs = socket.socketpair()
        code = (
            f"import os, sys; sys.path[:] = {sys.path!r}; "
            "os.environ.setdefault('OPENBLAS_NUM_THREADS', '1'); "  # a worker a core: numpy's idle threads would spin
            f"from pretrain.corpus.engine.local import serve; serve({theirs.fileno()}, {memory})"
        )
        with theirs:
            self.process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])
        self.pipe, self.journal = Connection(ours.detach()), journal
        self.number: int | None = None
        self._seen: tuple[Spot, float] = (NOWHERE, time.monotonic())

    def start(self, number: int, attempts: Attempts) -> None:
        self.number = number
        self.journal.unlink(missing_ok=True)
        self._seen = (NOWHERE, time.monotonic())
        self.pipe.send((attempts.task, self.journal, attempts.avoid))

    def hangs(self, seconds: float) -> bool:
        """Whether it has been at one record for longer than that."""
        now, spot = time.monotonic(), spot_in(self.journal)
        if spot != self._seen[0]:
            self._seen = (spot, now)
        return spot != NOWHERE and now - self._seen[1] > seconds

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self.journal.unlink(missing_ok=True)


class _Processes:
    """A worker a core, and the loop that feeds them."""

    def __init__(self, processes: int, memory: int, seconds: float, scratch: Path) -> None:
        self.processes, self.memory, self.seconds, self.scratch = processes, memory, seconds, scratch
        self.workers: list[_Worker] = []
        self._made = 0

    def close(self) -> None:
        for worker in self.workers:
            worker.end()

    def run(
        self, tasks: Sequence[Task], advance: Callable[[int], None] = lambda number: None
    ) -> list[object | Failure]:
        attempts, waiting = [Attempts(task) for task in tasks], deque(range(len(tasks)))
        results: list[object | Failure] = [None] * len(tasks)
        while waiting or any(worker.number is not None for worker in self.workers):
            self._feed(waiting, attempts)
            busy = [worker for worker in self.workers if worker.number is not None]
            wait([worker.pipe for worker in busy], timeout=1.0)
            for worker in busy:
                number = worker.number
                assert number is not None, "it is busy"
                outcome = self._hear(worker, attempts[number])
                if outcome is None and worker.number is None:
                    waiting.appendleft(number)
                elif outcome is not None:
                    results[number] = outcome[0]
                    advance(number)
        return results

    def _feed(self, waiting: deque[int], attempts: list[Attempts]) -> None:
        idle = [worker for worker in self.workers if worker.number is None]
        while waiting and (idle or len(self.workers) < self.processes):
            if not idle:
                self._made += 1
                path = self.scratch / f"worker-{os.getpid()}-{self._made}.at"
                self.workers.append(_Worker(self.memory, path))
                idle.append(self.workers[-1])
            number, worker = waiting.popleft(), idle.pop()
            try:
                worker.start(number, attempts[number])
            except OSError:  # it died while it was idle
                waiting.appendleft(number)
                self._bury(worker)

    def _hear(self, worker: _Worker, attempts: Attempts) -> "tuple[object | Failure] | None":
        """What a busy worker has come to; afterwards its `number` is None unless it is still at it."""
        try:
            if worker.pipe.poll():
                kind, value = worker.pipe.recv()
                worker.number = None
                return settle(attempts, kind, value, spot_in(worker.journal))
            if not worker.hangs(self.seconds):
                return None
            why = f"took longer than {self.seconds:g} s"
        except (EOFError, OSError):
            why = f"its worker died ({_cause(worker.process.wait())})"
        spot = spot_in(worker.journal)
        self._bury(worker)
        failure = attempts.died(spot, why)
        return None if failure is None else (failure,)

    def _bury(self, worker: _Worker) -> None:
        worker.end()
        worker.number = None
        self.workers.remove(worker)


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def serve(handle: int, memory: int) -> None:
    """A worker's life: tasks in, outcomes out, until the other end is closed."""
    gc.set_threshold(100_000, 20, 20)  # trees of pages are many objects and no cycles: a tenth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    pipe = Connection(handle)
    with suppress(EOFError, OSError):
        while True:
            task, journal, avoid = pipe.recv()
            outcome = perform(task, journal, avoid)
            pipe.send(outcome)

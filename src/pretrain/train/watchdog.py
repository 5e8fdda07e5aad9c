"""A thread beside training on each rank: it says which rank hangs and where, and which is slower than the others.

Collectives are dead once a rank hangs, so ranks tell where they stand in files of the run's folder; one that is stopped
writes none, and is named by that. What a thread is in, it looks up as a sampling profiler does, and needs no hooks: own
work is the time that a step does not stand in torch.distributed.
"""

import faulthandler
import json
import os
import re
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, median_low
from types import TracebackType
from typing import IO, Self

import torch
import torch.distributed as dist

import pretrain
from pretrain.base.files import write
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Hung, Slow
from pretrain.events.log import Log
from pretrain.parallel.apply import Ranks
from pretrain.parallel.launch import HUNG, host

LOOKS, TICK_SECONDS = 5, 0.05  # at what the main thread is in: so many a step, so far apart at least
USUAL_STEPS, LEAST_SECONDS, TIMES = 32, 120.0, 20  # a hang is so many times the median of the last steps, and no less
OUTSIDE = 15  # times longer may take what is no step: compiling in the first, evaluation, saving
ANSWER_SECONDS = 10.0  # that the others have to say where they stand
WINDOW, WINDOW_SECONDS = 10, 2.0  # steps and time after which ranks compare their own work, at least
SLOWER, EXCESS_LOOKS, WINDOWS = 1.5, 8, 3  # than the median, and so many looks more, in windows in a row
NAMED = 4  # ranks that one sentence names
TEXT_BYTES = 128
FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.M)
ROOT = str(Path(pretrain.__file__).parent) + os.sep
TORCH = str(Path(dist.__file__).parent) + os.sep


@dataclass(frozen=True)
class Stand:
    """Where a rank is: the collective that it waits in, "" if none, and the line of this package that led there."""

    rank: int
    node: str
    pid: int
    step: int
    collective: str
    line: str


class Watchdog:
    """Looks after the main thread while it is entered; with one rank it only knows how long steps take."""

    def __init__(self, ranks: Ranks, run: RunDirectory, report: Callable[[Event], None], hang: float | None) -> None:
        self._ranks, self._run, self._report, self._hang = ranks, run, report, hang
        self._main, self._end = threading.get_ident(), threading.Event()
        self._seconds: deque[float] = deque(maxlen=USUAL_STEPS)
        self._step, self._since, self._began = 0, time.monotonic(), 0.0  # began: 0 outside of a step
        self._own, self._lines, self._streaks = 0.0, Counter[str](), Counter[int]()
        self._opened, self._first = time.monotonic(), 0  # the window: when, and after which step
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._places: list[tuple[str, int]] = []  # node and pid of each rank

    def __enter__(self) -> Self:
        if not self._ranks.alone:
            said = (text.partition(" ") for text in texts(self._ranks, f"{os.getpid()} {host()}"))
            self._places = [(node, int(pid)) for pid, _, node in said]
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def usual(self) -> float:
        """Seconds of a step, the median of the last."""
        return median(self._seconds) if self._seconds else 0.0

    def begins(self) -> None:
        """A step begins: what the main thread does from here on is looked at."""
        self._began = self._since = time.monotonic()

    def ends(self, step: int) -> None:
        """The step is taken, which is this one's number; every so often ranks tell each other how much was own work."""
        now = time.monotonic()
        first = not self._step  # of a process: it compiles
        if not first:
            self._seconds.append(now - self._began)
        self._step, self._since, self._began = step, now, 0.0
        if first:
            self._own, self._opened, self._first = 0.0, now, step
        elif not self._ranks.alone and step % WINDOW == 0:
            self._compare(step, now)

    def _compare(self, step: int, now: float) -> None:
        if min(numbers(self._ranks, now - self._opened)) < WINDOW_SECONDS:
            return
        steps = step - self._first
        every = numbers(self._ranks, self._own / steps)
        usual, least = median_low(every), EXCESS_LOOKS * max(numbers(self._ranks, self._pause)) / steps
        slow = {n for n, own in enumerate(every) if own > SLOWER * usual and own - usual > least}
        self._streaks = Counter({rank: self._streaks[rank] + 1 for rank in slow})
        for rank in sorted(rank for rank in slow if self._streaks[rank] == WINDOWS):
            where = texts(self._ranks, self._lines.most_common(1)[0][0] if self._lines else "")[rank]
            node, own = self._places[rank][0], every[rank]
            text = (
                f"rank {rank} on {node} is slow: {own:.3f} s of work a step, where {usual:.3f} s are usual "
                f"({own / max(usual, 1e-3):.1f} times, {WINDOWS} times in a row), most of it at {where}"
            )
            self._report(Slow(rank, node, step, own, usual, where, text))
        self._own, self._opened, self._first = 0.0, now, step
        self._lines.clear()

    @property
    def _pause(self) -> float:
        """Seconds between two looks, which cost half a millisecond each."""
        return min(max(self.usual / LOOKS, TICK_SECONDS), 1.0)

    def _limit(self) -> float:
        """Seconds after which a step hangs, or what lies between two."""
        limit = self._hang or max(LEAST_SECONDS, TIMES * self.usual)
        return limit if self._began and self._seconds else limit * OUTSIDE

    def _watch(self) -> None:
        with tempfile.TemporaryFile() as dump:
            self._look(dump)

    def _look(self, dump: IO[bytes]) -> None:
        last, waits = time.monotonic(), True
        while not self._end.wait(self._pause):
            now = time.monotonic()
            if self._began:
                stand = self._stand(dump)
                if not waits:
                    self._own += now - last
                    self._lines[stand.line] += 1
                waits = bool(stand.collective)
            else:
                waits = True
            last, still = now, now - self._since
            folder = self._run.hangs / f"step-{self._step:08d}"
            if still > self._limit() or (still > (self._hang or LEAST_SECONDS) / 2 and folder.exists()):
                self._ends_here(folder, still, self._stand(dump))

    def _stand(self, dump: IO[bytes]) -> Stand:
        # In C, at one stroke: frames that Python follows while another thread runs are gone under its hands (3.11).
        dump.seek(0)
        dump.truncate()
        faulthandler.dump_traceback(dump)
        dump.seek(0)
        collective, line = standing(dump.read().decode(errors="replace"), self._main)
        return Stand(self._ranks.number, host(), os.getpid(), self._step, collective, line)

    def _ends_here(self, folder: Path, still: float, stand: Stand) -> None:
        """Says where this rank stands, and the first of those that do says it of all; then the process ends."""
        size, number = self._ranks.layout.ranks, self._ranks.number
        write(folder / f"rank-{number:05d}.json", json.dumps(asdict(stand)))
        until = time.monotonic() + ANSWER_SECONDS
        while len(found := stands(folder)) < size and time.monotonic() < until and not self._end.wait(TICK_SECONDS):
            pass
        if self._end.is_set():  # it was late, not hung
            return
        if number == min(found):
            text = verdict(found, self._places, self._step, still)
            self._tell(Hung(self._step, still, [asdict(one) for one in found.values()], text))
        os._exit(HUNG)

    def _tell(self, event: Event) -> None:
        if self._ranks.leads:
            self._report(event)
        else:
            with Log(self._run, self._ranks.number) as log:
                log.write(event)


def standing(dump: str, main: int) -> tuple[str, str]:
    """(collective, line of this package) of the main thread, or of one that computes gradients for it."""
    head = f"hread 0x{main:016x} "
    every = dump.split("\n\n")
    mine = next(part for part in every if head in part)
    own = _place(mine)
    if own[0] or f"{os.sep}autograd{os.sep}" not in mine.partition("\n")[2].partition("\n")[0]:
        return own
    others = (_place(part) for part in every if part is not mine)
    return next((one for one in others if one[0]), own)


def _place(stack: str) -> tuple[str, str]:
    """Of one thread's part of a dump, innermost first."""
    collective = ""
    for path, line, name in FRAME.findall(stack):
        if path.startswith(TORCH):
            collective = collective or ("a collective" if name == "wrapper" else f"{Path(path).stem}.{name}")
        elif path.startswith(ROOT):
            return collective, f"{path.removeprefix(ROOT)}:{line}"
    return collective, ""


def stands(folder: Path) -> dict[int, Stand]:
    """Where the ranks stand that have said so, by rank."""
    found = (Stand(**json.loads(path.read_bytes())) for path in sorted(folder.glob("rank-*.json")))
    return {one.rank: one for one in found}


def verdict(found: Mapping[int, Stand], places: Sequence[tuple[str, int]], step: int, seconds: float) -> str:
    """Who hangs, in words: who says nothing, who is in no collective, who is in another one than most are."""
    met = Counter((one.collective, one.line) for one in found.values() if one.collective)
    (most, line), _ = met.most_common(1)[0] if met else (("", ""), 0)
    odd = []
    for rank, (node, pid) in enumerate(places):
        one = found.get(rank)
        if one is None:
            odd.append(f"rank {rank} on {node} (process {pid}) says nothing: it is stopped, or cut off")
        elif not one.collective:
            odd.append(f"rank {rank} on {node} (process {pid}) is in no collective, but at {one.line}")
        elif (one.collective, one.line) != (most, line):
            odd.append(f"rank {rank} on {node} (process {pid}) is in {one.collective} at {one.line}")
    more = [f"{len(odd) - NAMED} more"] if len(odd) > NAMED else []
    rest = f"the others wait in {most} at {line}" if odd else f"all wait in {most} at {line}: a message was lost"
    return f"no step in {seconds:.0f} s after step {step}: " + "; ".join(
        [*odd[:NAMED], *more, *([rest] if met else [])]
    )


def numbers(ranks: Ranks, value: float) -> list[float]:
    """What each rank says."""
    assert ranks.mesh is not None, "one rank has nobody to ask"
    own = torch.tensor([value], device=ranks.mesh.device_type)
    every = [torch.empty_like(own) for _ in range(ranks.layout.ranks)]
    dist.all_gather(every, own)
    return torch.cat(every).tolist()


def texts(ranks: Ranks, text: str) -> list[str]:
    """What each rank says, in so many bytes."""
    assert ranks.mesh is not None, "one rank has nobody to ask"
    letters = list(text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0"))
    own = torch.tensor(letters, dtype=torch.uint8, device=ranks.mesh.device_type)
    every = [torch.empty_like(own) for _ in range(ranks.layout.ranks)]
    dist.all_gather(every, own)
    return [bytes(one.tolist()).rstrip(b"\0").decode(errors="replace") for one in every]

"""The loop: steps until the last one, saved and reported; what happens between steps is a list of callables."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pretrain.base.remote import Place as Folder
from pretrain.base.units import show_count
from pretrain.checkpoint.saver import Saver
from pretrain.checkpoint.state import State
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Notice, Step
from pretrain.optimizer.schedule import factor
from pretrain.order.batch import Data
from pretrain.order.loader import Loader
from pretrain.recipe.train import Train
from pretrain.train.accounts import Accounts, Spent
from pretrain.train.copies import compare
from pretrain.train.guard import Guard
from pretrain.train.machine import used_bytes
from pretrain.train.routers import told
from pretrain.train.step import Left, Result, Steps, train_step
from pretrain.train.watchdog import WINDOW, Watchdog

WAIT_SHARE, WAIT_STEPS, WAIT_SECONDS = 0.1, 20, 1.0  # of steps that wait for data, from which on it is said
Callback = tuple[int, Callable[[State], None]]  # every so many steps (0: never) and after the last, do this


@dataclass(frozen=True)
class Place:
    """Where a run saves and whom it tells."""

    checkpoints: Folder
    recipe_toml: str
    report: Callable[[Event], None]
    flops_per_token: float
    peak_flops_per_second: float
    run: RunDirectory = field(default_factory=lambda: RunDirectory(Path()))
    hang_seconds: float | None = None
    notice_seconds: float = 60.0
    vendor_flops_per_second: float = 0.0  # what data sheets say of all devices; 0: not known


def train(
    state: State, data: Data, section: Train, total: int, steps: Steps, place: Place, callbacks: Sequence[Callback] = ()
) -> None:
    """Takes steps from `state.step` to `total`. Ctrl-C and SIGTERM save and raise KeyboardInterrupt.

    A checkpoint is begun before any callback that falls on the same step, since those may run out of memory, and is
    whole when this returns or raises. What harms is decided by the guard before weights move. Raises UserError where it
    gives up, MachineError where ranks that hold the same hold other bits, and what went wrong with a save, after the
    next step.
    """
    while _steps(state, data, section, total, steps, place, callbacks):
        pass  # training went back, and reads on from another place


def _steps(
    state: State, data: Data, section: Train, total: int, steps: Steps, place: Place, callbacks: Sequence[Callback]
) -> bool:
    """Steps up to the last, or until training goes back to a checkpoint: then it is True."""
    rows, ranks = section.batch // data.row, steps.ranks
    turns = [one.position for one in state.history.segments] + [start for start, _ in data.lengths]
    guard = Guard(state, section.guard, rows, turns, place.checkpoints, place.report)
    clock, since = time.perf_counter(), state.step
    share = ranks.data_rank, ranks.layout.data
    saver = Saver(place.checkpoints, place.recipe_toml, section.keep, place.report, ranks)
    steps = replace(steps, before_update=saver.before_update)
    watchdog = Watchdog(ranks, place.run, place.report, place.hang_seconds)
    accounts = Accounts(steps.clock, ranks, steps.policy.device, place.report)
    with (
        Loader(data, state.position, rows, share=share) as loader,
        stop_signals(ranks.alone) as stop,
        saver,
        watchdog,
    ):
        waits = Waits(loader, section.batch, place.report)
        for batch in loader:
            if state.step >= total:
                break
            scale = factor(section.schedule, state.step, total)
            watchdog.begins()
            try:
                result = accounts.take(partial(train_step, state, batch, steps, scale, guard.takes), state.step + 1)
            except Left:
                ranks.fold(state.model)
                saver.save(state, wait=True)
                raise KeyboardInterrupt from None
            if not result.taken:
                saver.wait()  # what training may go back to
                if guard.pass_over():
                    return True
                continue
            state.step, state.position = state.step + 1, state.position + rows
            # Asked once a step: a signal that comes below is the next step's.
            asked = ranks.most(2 if saver.failed else int(stop.is_set()))
            if asked == 2:
                saver.wait()  # and raise
            saver.look()
            stopped = asked == 1
            watchdog.ends(state.step)
            if state.step % WINDOW == 0 and ranks.layout.pp == 1:
                long = ranks.any(watchdog.usual > place.notice_seconds / 4)
                steps = replace(steps, leaves=(lambda: ranks.any(stop.is_set())) if long else None)
            ends = state.step == total or stopped
            if ends or state.step % section.log_every == 0:
                now = time.perf_counter()
                _tell(
                    state,
                    section,
                    data,
                    result,
                    scale,
                    (now - clock) / max(state.step - since, 1),
                    place,
                    waits.share(state.step - since, now - clock),
                    accounts.spent(),
                )
                clock, since = now, state.step
            saves = ends or (section.checkpoint_every and state.step % section.checkpoint_every == 0)
            every = section.guard.compare_every
            if every and (saves or state.step % every == 0):
                compare(state, place.report)
            if saves:
                saver.save(state, wait=ends)
                steps.clock.mark("checkpoint")
            if stopped:
                raise KeyboardInterrupt
            due = [call for every, call in callbacks if every and (state.step % every == 0 or state.step == total)]
            for call in due:
                call(state)
            if due:  # time that callbacks take is no step's
                steps.clock.mark("evaluation")
                clock, since = time.perf_counter(), state.step
                waits.share(0, 0.0)
    return False


class Waits:
    """How long steps waited for data; says so, once, where it is too long."""

    def __init__(self, loader: Loader, batch: int, report: Callable[[Event], None]) -> None:
        self._loader, self._batch, self._report = loader, batch, report
        self._before, self._steps, self._seconds, self._waited = 0.0, 0, 0.0, 0.0
        self._said = False

    def share(self, steps: int, seconds: float) -> float:
        """The share of the last `steps`, which took `seconds`, that was waiting."""
        waited, self._before = self._loader.waited - self._before, self._loader.waited
        if not steps:
            return 0.0
        self._steps, self._seconds, self._waited = self._steps + steps, self._seconds + seconds, self._waited + waited
        share = self._waited / max(self._seconds, 1e-9)
        if not self._said and self._steps >= WAIT_STEPS and self._waited >= WAIT_SECONDS and share >= WAIT_SHARE:
            self._said = True
            rate = show_count(self._batch * self._steps / self._seconds)
            text = f"{share:.0%} of the last {self._steps} steps was waiting for data, which comes at {rate} tokens/s"
            self._report(Notice("warning", f"{text}: a faster disk or store, or a larger tokens.cache_bytes"))
        if self._steps >= WAIT_STEPS:
            self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        return min(waited / max(seconds, 1e-9), 1.0)


def _tell(
    state: State,
    section: Train,
    data: Data,
    result: Result,
    scale: float,
    seconds: float,
    place: Place,
    waited: float,
    spent: Spent,
) -> None:
    loss, norm = float(result.loss), float(result.gradient_norm)
    rows = section.batch // data.row
    flops = place.flops_per_token * section.batch / seconds
    rate = getattr(section.optimizer.bind(), "lr", math.nan)
    place.report(
        Step(
            step=state.step,
            position=state.position - rows,
            rows=rows,
            tokens=state.history.learned(state.position) * data.row,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate * scale,
            step_seconds=seconds,
            tokens_per_second=section.batch / seconds,
            flops_per_second=flops,
            flops_fraction=flops / place.peak_flops_per_second,
            memory_bytes=used_bytes(),
            data_wait_fraction=waited,
            losses={name: float(mean) for name, mean in result.losses.items()},
            vendor_flops_fraction=flops / (place.vendor_flops_per_second or math.inf),
            **spent,
            **told(result.routing, result.routed),
        )
    )


@contextmanager
def stop_signals(alone: bool = True) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is finished; the second one interrupts at once, unless a
    process is one of several: then a terminal and the one that started it both send the first."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set() and alone:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

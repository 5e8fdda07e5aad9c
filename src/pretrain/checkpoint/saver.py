"""Saving while training goes on: steps stand still for a copy in memory, and a thread writes that.

The bound of memory is one copy of what the rank holds: a save that is due while one is being written waits for it.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch

from pretrain.base.errors import DiskFullError
from pretrain.base.files import Entry
from pretrain.base.remote import Place
from pretrain.checkpoint.save import Snapshot, agreed, make_room, prune, step_of
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Notice, Pruned, Saved
from pretrain.parallel.apply import Ranks

LOOK_SECONDS = 0.05  # between two looks of all ranks whether each has written its part
LAST_SECONDS = 10.0  # that parts of other ranks are still waited for when training has failed


class Flight(threading.Thread):
    """A save that is being written."""

    def __init__(self, snapshot: Snapshot, copied: "torch.cuda.Event | None", keep: int, begun: float) -> None:
        super().__init__(name="save", daemon=True)  # a second Ctrl-C does not wait for it: what is there stays whole
        self.snapshot, self._copied, self._keep, self._begun = snapshot, copied, keep, begun
        self.error: Exception | None = None
        self.notice = ""
        self.seconds, self.stood, self.written, self.pruned = 0.0, 0.0, 0, list[Place]()
        self.start()

    def run(self) -> None:
        """Writes it, then removes old ones."""
        try:
            if self._copied is not None:
                self._copied.synchronize()
            self.written = sum(entry["bytes"] for entry in self._write().values())
            self.seconds = time.perf_counter() - self._begun
            if self.snapshot.ranks.leads:
                self.pruned = prune(self.snapshot.folder, self._keep)
        except Exception as error:  # raised where training next looks
            self.error = error

    def _write(self) -> dict[str, Entry]:
        """One process alone makes room where there is none, by the checkpoints before the newest."""
        try:
            return self.snapshot.write()
        except DiskFullError as error:
            if not (self.snapshot.ranks.alone and make_room(self.snapshot.folder)):
                raise
            self.notice = f"{error}: all checkpoints but the newest were removed to make room"
            self.snapshot.begin()
            return self.snapshot.write()


class Saver:
    """Saves the states of a run, one at a time, and tells of each once it is whole. All ranks have one and call the
    same; what goes wrong on one is raised on all, by the next call of `save` or `wait`."""

    def __init__(
        self, folder: Place, recipe_toml: str, keep: int, report: Callable[[Event], None], ranks: Ranks
    ) -> None:
        self._folder, self._toml, self._keep, self._report, self._ranks = folder, recipe_toml, keep, report, ranks
        self._flight: Flight | None = None
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None

    def save(self, state: State, *, wait: bool) -> None:
        """Copies a state and returns while a thread writes it; with `wait`, once it is whole, and without a copy."""
        start = time.perf_counter()
        self.wait()
        snapshot = Snapshot.of(state, self._folder, self._toml)
        snapshot.begin()
        if not wait:
            snapshot = self._copy(snapshot)
        flight = self._flight = Flight(snapshot, self._copied, self._keep, start)
        if wait:
            self._written()
        flight.stood = time.perf_counter() - start
        self.look()

    def wait(self) -> None:
        """Until nothing is being written on any rank. Raises what went wrong there."""
        self._written()
        self.look()

    def look(self) -> None:
        """Tells of a save that has become whole since."""
        flight = self._flight
        if flight is None or flight.is_alive() or flight.error is not None:
            return
        self._flight = None
        if self._ranks.leads:
            path, step = flight.snapshot.path, flight.snapshot.step
            if flight.notice:
                self._report(Notice("warning", flight.notice))
            self._report(Saved(step, str(path), flight.stood, flight.written, max(flight.seconds, flight.stood)))
            for old in flight.pruned:
                self._report(Pruned(step_of(old), str(old)))

    @property
    def failed(self) -> bool:
        """Whether this rank could not write its part."""
        return self._flight is not None and self._flight.error is not None

    def before_update(self) -> None:
        """Lets the device finish a copy before weights change."""
        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)
            self._copied = None

    def _written(self) -> None:
        while True:
            flight = self._flight
            if flight is not None:
                flight.join(None if self._ranks.alone else LOOK_SECONDS)
            busy = self._ranks.any(flight is not None and flight.is_alive())
            error = agreed(self._ranks, flight.error if flight is not None else None)
            if error is not None:
                if flight is not None:
                    flight.snapshot.until = time.monotonic()
                    flight.join()
                self._flight = None
                raise error
            if not busy:
                return

    def _copy(self, snapshot: Snapshot) -> Snapshot:
        """In memory that the next save uses again; from a GPU in a stream of its own, beside the next passes."""
        on_gpu = any(tensor.is_cuda for content in snapshot.contents for tensor in content.tensors)
        if len(self._buffer) < snapshot.bytes:
            self._buffer = torch.empty(snapshot.bytes, dtype=torch.uint8, pin_memory=on_gpu)
        if not on_gpu:
            return snapshot.copied(self._buffer)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            copy = snapshot.copied(self._buffer)
            self._copied = stream.record_event()
        return copy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is being written becomes whole, whatever ended training, but for a second Ctrl-C."""
        if self._flight is None or kind is KeyboardInterrupt:
            return
        if kind is not None:
            self._flight.snapshot.until = time.monotonic() + LAST_SECONDS
        self._flight.join()
        if self._flight.error is not None:
            self._report(
                Notice("warning", f"the checkpoint of step {self._flight.snapshot.step}: {self._flight.error}")
            )
        self.look()

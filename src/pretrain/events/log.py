"""Appends events to `events/rank-00000.jsonl`: a line each, with the system at once, so that kill -9 loses none."""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pretrain.base.errors import UserError
from pretrain.base.files import room_for
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, to_json


class Log:
    """The one writer of a rank's file in a run directory; raises UserError where another process writes it already."""

    def __init__(self, run: RunDirectory, rank: int = 0) -> None:
        self.path = run.events / f"rank-{rank:05d}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._subscribers: list[Callable[[Event], None]] = []
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system when the process ends
        except OSError:
            os.close(self._file)
            what, expected = "another process is working on this run", "it to end first, here or on another machine"
            raise UserError(what, where=str(run.path), expected=expected) from None
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Calls `subscriber` with every event from now on, after it is written."""
        self._subscribers.append(subscriber)

    def write(self, event: Event) -> None:
        """Appends an event with the time of now."""
        event = dataclasses.replace(event, time=time.time())
        line = json.dumps(to_json(event), ensure_ascii=False, separators=(",", ":")) + "\n"
        with room_for(self.path):
            os.write(self._file, line.encode("utf-8", "backslashreplace"))
        for subscriber in self._subscribers:
            subscriber(event)

    def close(self) -> None:
        """Syncs the file and lets go of it."""
        os.fsync(self._file)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

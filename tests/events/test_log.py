"""Ordeal: the log loses nothing that was written, whatever kills its writer; steps stand as they were last taken."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import KINDS, Event, Notice, Resumed, Score, Step, from_json, kind, to_json
from pretrain.events.log import Log
from pretrain.events.read import all_of, follow, last, read, steps

MUTANTS = [
    ("src/pretrain/events/log.py", "os.ftruncate(self._file, whole)", "pass"),
    ("src/pretrain/events/read.py", "taken[-1].step >= step.step", "False"),
    ("src/pretrain/events/read.py", 'if not line.endswith(b"\\n"):\n                        break', "pass"),
]
CHILD = """
import sys
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Notice
from pretrain.events.log import Log
from pathlib import Path
log = Log(RunDirectory(Path(sys.argv[1])))
i = 0
while True:
    log.write(Notice("info", f"{i} " + "é" * 500))
    print(i, flush=True)
    i += 1
"""


def step(number: int, loss: float) -> Step:
    return Step(number, number * 4, 4, 64, loss, 1.0, 0.1, 0.5, 128.0, 1e9, 0.5, 1000)


def test_sigkill_loses_no_event_that_was_acknowledged(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(200)][-1]
    os.kill(process.pid, signal.SIGKILL)
    told = max([told, *map(int, process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    run = RunDirectory(tmp_path)
    numbers = [int(event.text.split()[0]) for event in all_of(run, Notice)]
    assert numbers == list(range(len(numbers))) and len(numbers) > told


def test_a_torn_line_is_cut_and_never_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with Log(run) as log:
        log.write(Notice("info", "whole"))
    with log.path.open("a") as file:
        file.write('{"kind":"notice","ti')
    assert [event.text for event in all_of(run, Notice)] == ["whole"]
    with Log(run) as log:
        log.write(Notice("info", "after"))
    assert [event.text for event in all_of(run, Notice)] == ["whole", "after"]


def test_a_follower_sees_each_event_once_and_never_a_torn_line(tmp_path: Path) -> None:
    run, seen, waits = RunDirectory(tmp_path), list[str](), 0

    def wait() -> bool:
        nonlocal waits
        waits += 1
        if waits == 1:
            with Log(run) as log, Log(run, rank=1) as other:
                log.write(Notice("info", "a"))
                other.write(Notice("info", "b"))
            with log.path.open("a") as file:
                file.write('{"kind":"notice","level":"info","text":"torn and longer than what comes next')
        elif waits == 2:
            with Log(run) as log:
                log.write(Notice("info", "c"))
        return waits < 4

    for event in follow(run, wait):
        assert isinstance(event, Notice)
        seen.append(event.text)
    assert seen == ["a", "b", "c"] and waits == 4


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with Log(run), pytest.raises(UserError, match="another process is working on this run"):
        Log(run)
    with Log(run, rank=1) as other:
        other.write(Notice("info", "another rank"))
    assert [type(event) for event in read(run)] == [Notice]


def test_repeated_steps_stand_as_last_taken(tmp_path: Path) -> None:
    run, seen = RunDirectory(tmp_path), list[Event]()
    with Log(run) as log:
        log.subscribe(seen.append)
        for number in (1, 2, 3, 4):
            log.write(step(number, 5.0))
        log.write(Resumed(2, 8, "x"))
        for number in (3, 4, 5):
            log.write(step(number, 4.0))
    assert [(one.step, one.loss) for one in steps(run)] == [(1, 5.0), (2, 5.0), (3, 4.0), (4, 4.0), (5, 4.0)]
    assert last(run, Step) == seen[-1] and last(run, Score) is None and all(event.time > 1e9 for event in seen)


def test_every_kind_comes_back_and_an_unknown_one_is_passed_over() -> None:
    event = Score(3, "x", 1.5, "bits", "held out", {"a": 1})
    assert from_json(to_json(event)) == event and kind(Score) == "score"
    assert from_json({"kind": "from the future"}) is None
    assert from_json({**to_json(event), "new field": 1}) == event
    assert all(name == kind(cls) and cls.__doc__ for name, cls in KINDS.items())

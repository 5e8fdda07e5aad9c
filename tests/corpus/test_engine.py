"""Ordeal: workers that die, hang or eat memory take down one record; the rest is what it would have been."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.corpus.task import Failure, Journal, Task

MUTANTS = [
    ("src/pretrain/corpus/task.py", "times >= DEATHS and", "times > DEATHS + 9 and"),
    ("src/pretrain/corpus/engine/local.py", "now - self._seen[1] > seconds", "False"),
]
Local = find("corpus.engine", "local").Local


@dataclass(frozen=True)
class Trouble:
    """What happens at which record of a unit; `once` leaves a file behind and happens no more."""

    record: int
    what: str
    once: Path | None = None


def work(unit: int, troubles: tuple[Trouble, ...], out: Path, journal: Journal) -> list[int]:
    done = []
    for record in range(5):
        if not journal.at(unit, record):
            continue
        for trouble in troubles:
            if trouble.record == record and not (trouble.once and trouble.once.exists()):
                if trouble.once:
                    trouble.once.touch()
                suffer(trouble.what)
        done.append(record)
    (out / str(unit)).write_text(str(done))
    return done


def suffer(what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    if what == "exit":
        os._exit(3)
    if what == "user":
        raise UserError("a wrong key", where="here")
    if what == "error":
        raise ValueError("bad luck")


def run(folder: Path, troubles: dict[int, tuple[Trouble, ...]], **options: float) -> list[object]:
    with Local(processes=2, **options).open(folder) as pool:
        tasks = [Task(f"unit {unit}", work, (unit, troubles.get(unit, ()), folder)) for unit in range(6)]
        return pool.run(tasks)


def test_a_record_takes_itself_down_and_no_other(tmp_path: Path) -> None:
    troubles = {1: (Trouble(3, "kill"),), 4: (Trouble(0, "exit"), Trouble(2, "kill"))}
    whole = [0, 1, 2, 3, 4]
    assert run(tmp_path, troubles) == [whole, [0, 1, 2, 4], whole, whole, [1, 3, 4], whole]


def test_a_worker_that_is_killed_once_changes_nothing(tmp_path: Path) -> None:
    troubles = {unit: (Trouble(unit % 5, "kill", tmp_path / f"once-{unit}"),) for unit in range(6)}
    assert run(tmp_path, troubles) == [[0, 1, 2, 3, 4]] * 6


def test_a_record_that_hangs_is_left_out(tmp_path: Path) -> None:
    assert run(tmp_path, {2: (Trouble(1, "hang"),)}, record_seconds=0.5)[2] == [0, 2, 3, 4]


def test_errors_are_tried_thrice_and_a_users_mistake_once(tmp_path: Path) -> None:
    results = run(tmp_path, {0: (Trouble(1, "error"),), 3: (Trouble(0, "error", tmp_path / "once"),)})
    assert isinstance(results[0], Failure) and "bad luck" in results[0].reason and results[0].spot == (0, 1, 0)
    assert results[3] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="here: a wrong key"):
        run(tmp_path, {5: (Trouble(1, "user"),)})

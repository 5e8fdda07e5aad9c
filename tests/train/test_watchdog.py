"""Ordeal and closed form: where a thread stands is read from a dump while it runs, as often as one likes."""

import faulthandler
import re
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import torch.distributed as dist

from pretrain.base.random import permute
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Slow
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from pretrain.train import watchdog
from pretrain.train.watchdog import Watchdog, standing
from ranks import ranks

MUTANTS = [
    ("src/pretrain/train/watchdog.py", " and own - usual > least", ""),
    ("src/pretrain/train/watchdog.py", "self._streaks[rank] + 1", "self._streaks[rank] + 2"),
    (
        "src/pretrain/train/watchdog.py",
        "{rank: self._streaks[rank] + 1 for rank in slow}",
        "[*self._streaks.elements(), *slow]",
    ),
    ("src/pretrain/train/watchdog.py", "path.startswith(ROOT)", "path.startswith(TORCH)"),
    ("src/pretrain/train/watchdog.py", 'head = f"hread 0x{main:016x} "', 'head = "hread 0x"'),
]


def dumped() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read().decode()


def looks(main: int, times: int) -> list[tuple[str, str]]:
    """What another thread sees of this one."""
    found: list[tuple[str, str]] = []

    def look() -> None:
        for _ in range(times):
            found.append(standing(dumped(), main))

    thread = threading.Thread(target=look)
    thread.start()
    while thread.is_alive():
        for i in range(50):
            permute(i, 1000, 7)
    return found


def test_a_busy_thread_is_looked_at_hundreds_of_times_and_stands_in_a_line_of_ours() -> None:
    found = looks(threading.get_ident(), 300)
    assert len(found) == 300
    assert any(line.startswith("base/random.py:") for _, line in found) and not any(name for name, _ in found)


@ranks(2)
def test_a_rank_that_waits_for_another_stands_in_a_collective() -> None:
    found = list[str]()
    if dist.get_rank() == 0:
        main = threading.get_ident()
        thread = threading.Timer(0.3, lambda: found.append(dumped()))
        thread.start()
        dist.barrier()
        thread.join()
        collective, _ = standing(found[0], main)
        assert collective == "distributed_c10d.barrier"
    else:
        time.sleep(0.8)
        dist.barrier()


@ranks(2)
def test_a_rank_that_works_longer_in_three_windows_in_a_row_is_named() -> None:
    """By a process that went on from step 40: seconds of own work in windows of ten steps."""
    on, found = Ranks.of(Layout(replicate=2), "cpu"), list[Event]()
    noise = [(step, 0.3, 0.1) for step in (50, 60, 70)]  # three times as much, and less than looks can tell
    once = [(80, 9.0, 1.0), (90, 9.0, 1.0), (100, 1.0, 1.0)]
    always = [(step, 9.0, 1.0) for step in (110, 120, 130, 140)]
    dog = Watchdog(on, RunDirectory(Path("nowhere")), found.append, None)
    with mock.patch.object(watchdog, "WINDOW_SECONDS", 0.0), dog:
        dog.ends(40)
        for step, own, usual in (*noise, *once, *always):
            dog.begins()
            dog._own = own if on.number == 1 else usual
            dog._lines["model/decoder.py:1"] = 1
            dog.ends(step)
    (slow,) = found
    assert isinstance(slow, Slow) and (slow.rank, slow.step) == (1, 130)
    assert re.match(r"rank 1 on \S+ is slow: 0.900 s .* 0.100 s .*9.0 times.* at model/decoder.py:1$", slow.text)


def test_the_one_that_is_missing_is_named() -> None:
    stood = watchdog.Stand(1, "b", 11, 5, "distributed_c10d.all_reduce", "parallel/links.py:42")
    text = watchdog.verdict({1: stood}, [("a", 10), ("b", 11)], 5, 30.0)
    assert "rank 0" in text and "a" in text and "all_reduce" in text and "parallel/links.py:42" in text

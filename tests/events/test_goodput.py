"""Closed form: a run of ten steps that was killed after seven and went on from five."""

from dataclasses import replace
from typing import Any

import pytest

from pretrain.events.goodput import goodput
from pretrain.events.kinds import Event, Fault, Finished, Saved, Stage, Started, Step

MUTANTS = [
    ("src/pretrain/events/goodput.py", "event.step_seconds * (event.step - before)", "event.step_seconds"),
    ("src/pretrain/events/goodput.py", "taken[-1][0] >= event.step", "taken[-1][0] > event.step"),
    ("src/pretrain/events/goodput.py", "first = first or event.time", "first = event.time"),
    ("src/pretrain/events/goodput.py", "event.time if first else 0.0", "event.time"),
    ("src/pretrain/events/goodput.py", "first + away, 0.0", "first, 0.0"),
]


def step(number: int, seconds: float, time: float) -> Step:
    rest: dict[str, Any] = dict.fromkeys(
        ("loss", "gradient_norm", "learning_rate", "tokens_per_second", "flops_per_second", "flops_fraction"), 0.0
    )
    return Step(number, 0, 1, 1, step_seconds=seconds, memory_bytes=0, time=time, **rest)


def test_what_was_taken_again_is_not_kept() -> None:
    begin = [Stage("train", "started", "", time=100.0)]
    before: list[Event] = [step(1, 2.0, 103.0), step(3, 2.0, 107.0), step(5, 2.0, 111.0)]
    before += [Saved(5, "", 0.5, 1, time=112.0), step(7, 2.0, 116.0)]
    again = [Stage("train", "started", "", time=150.0)]
    after: list[Event] = [
        step(7, 3.0, 156.0),
        step(10, 1.0, 159.0),
        Saved(10, "", 1.5, 1, time=160.0),
    ]
    found = goodput([*begin, *before, *again, *after])
    assert found.wall == 60.0
    assert found.kept == 5 * 2 + 2 * 3 + 3 * 1
    assert found.repeated == 2 * 2
    assert found.saving == 2.0
    assert found.share == pytest.approx(19 / 60)


def test_a_run_that_was_done_and_is_made_longer_has_not_paused() -> None:
    """One that was interrupted has."""
    begun, train = Started("x", "", "", "", time=90.0), Stage("train", "started", "", time=100.0)
    one = [begun, train, step(1, 2.0, 102.0)]
    more = [replace(begun, time=1000.0), replace(train, time=1005.0), step(2, 2.0, 1007.0)]
    assert goodput([*one, Finished(12.0, "", time=110.0), *more]).wall == 907 - (1000 - 110)
    scored = [replace(begun, time=500.0), Finished(1.0, "", time=501.0)]
    assert goodput([*one, Finished(12.0, "", time=110.0), *scored, *more]).wall == 907 - (500 - 110) - (1000 - 501)
    assert goodput([*one, Finished(12.0, "", time=110.0), *scored]).wall == 2
    assert goodput([*one, Fault("interrupted", time=110.0), *more]).wall == 907
    assert goodput([begun, Finished(1.0, "", time=91.0), *one, *more]).wall == 907, "before it trained"


def test_a_run_that_never_trained_has_none() -> None:
    assert goodput([Stage("corpus", "started", "", time=5.0)]).share == 0.0

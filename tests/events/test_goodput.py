"""Closed form: a run of ten steps that was killed after seven and went on from five."""

from typing import Any

import pytest

from pretrain.events.goodput import goodput
from pretrain.events.kinds import Event, Saved, Stage, Step

MUTANTS = [
    ("src/pretrain/events/goodput.py", "event.step_seconds * (event.step - before)", "event.step_seconds"),
    ("src/pretrain/events/goodput.py", "taken[-1][0] >= event.step", "taken[-1][0] > event.step"),
    ("src/pretrain/events/goodput.py", "first = first or event.time", "first = event.time"),
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


def test_a_run_that_never_trained_has_none() -> None:
    assert goodput([Stage("corpus", "started", "", time=5.0)]).share == 0.0

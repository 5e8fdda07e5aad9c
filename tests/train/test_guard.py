"""Twin and ordeal: a run that passes over a batch learns, bit for bit, what one learns whose order never had it."""

import errno
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base import files
from pretrain.base.errors import DiskFullError, UserError
from pretrain.checkpoint.save import newest
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Notice, Skipped, Step
from pretrain.model.weights import expand, held, local
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from pretrain.recipe.train import Guard
from pretrain.train.guard import judged
from ranks import ranks
from taught import ROW, section, taught, tokens

MUTANTS = [
    ("src/pretrain/train/guard.py", "norm > rules.factor * usual", "norm > usual"),
    ("src/pretrain/train/guard.py", "loss - usual > rules.factor * spread", "loss - usual > spread"),
    ("src/pretrain/train/guard.py", "median(abs(one - usual) for one in losses)", "median(losses)"),
    ("src/pretrain/train/guard.py", "del recent[: -self._rules.window]", "pass"),
    ("src/pretrain/train/guard.py", "end >= stop - span * self._rows", "end >= stop"),
    ("src/pretrain/train/guard.py", "max(self._rules.window, self._rules.patience)", "self._rules.window"),
    ("src/pretrain/train/guard.py", "stop + self._rules.ahead * self._rows", "stop"),
    ("src/pretrain/train/guard.py", "start, stop = state.position, stop +", "start, stop = start, stop +"),
    ("src/pretrain/train/guard.py", 'if self._rule == "take":\n', "if norm < 1e9:\n"),
    ("src/pretrain/train/guard.py", '["position"] not in tried', '["position"] >= 0'),
    ("src/pretrain/train/guard.py", "start if stop == position else position", "position"),
    ("src/pretrain/train/guard.py", "            recent.clear()", "            pass"),
    ("src/pretrain/train/step.py", "if taken:", "if True:"),
    ("src/pretrain/checkpoint/save.py", '"recent": state.recent', '"recent": []'),
    ("src/pretrain/order/order.py", "(*self.skipped, (start, stop))", "((start, stop),)"),
    ("src/pretrain/checkpoint/save.py", "bool(prune(folder, 1))", "False"),
    ("src/pretrain/order/order.py", "return position - sum(", "return position + sum("),
]  # fmt: skip


def assert_equal(one: State, other: State) -> None:
    """Every weight and every moment, to the last bit."""
    assert one.step == other.step and one.recent == other.recent
    for weight in expand(one.rows):
        assert torch.equal(local(held(one.model, weight.name)), local(held(other.model, weight.name))), weight.name
    moments, others = one.optimizer.state(), other.optimizer.state()
    assert moments.keys() == others.keys() and len(moments) > 10
    assert all(torch.equal(local(moment), local(others[name])) for name, moment in moments.items())


def skips(events: Sequence[Event]) -> list[tuple[int, int, int, int]]:
    return [(one.step, one.after, one.position, one.rows) for one in events if isinstance(one, Skipped)]


@pytest.mark.parametrize("loud", [math.nan, math.inf, 1e4])
def test_a_skipped_batch_was_never_there(tmp_path: Path, loud: float) -> None:
    """Its 4 rows begin at 28: step 8, after the window has filled; one of its samples is bad."""
    tokens(tmp_path)
    bad, rules = {30: loud}, section()
    found, events = taught(tmp_path, "bad", 10, rules, bad)
    truth, _ = taught(tmp_path, "truth", 10, rules, gap=(28, 32))
    assert skips(events) == [(8, 7, 28, 4)]
    assert_equal(found, truth)
    assert len(found.recent) == 4 and (found.position, truth.position) == (44, 40)
    assert found.history.skipped == ((28, 32),)
    told = [(one.step, one.position, one.rows, one.tokens) for one in events if isinstance(one, Step)]
    assert told[6:9] == [(7, 24, 4, 28 * ROW), (8, 32, 4, 32 * ROW), (9, 36, 4, 36 * ROW)]
    for kill in (8, 10):  # before the skip was saved, or after it
        taught(tmp_path, f"killed{kill}", 10, rules, bad, kill=kill)
        again, later = taught(tmp_path, f"killed{kill}", 10, rules, bad)
        assert_equal(again, found)
        assert again.history == found.history and len(skips(later)) == (kill == 8)


@pytest.mark.parametrize("loud", [math.nan, 1e4])
def test_after_a_rewind_all_since_the_checkpoint_was_never_there(tmp_path: Path, loud: float) -> None:
    """Bad is the eighth batch: back to step 6, past the seventh, the eighth, and one more."""
    tokens(tmp_path)
    rules, bad = section(not_finite="rewind", spike="rewind"), {30: loud}
    found, events = taught(tmp_path, "bad", 12, rules, bad)
    truth, _ = taught(tmp_path, "truth", 12, rules, gap=(24, 36))
    assert skips(events) == [(8, 6, 24, 12)] and found.history.skipped == ((24, 36),)
    assert_equal(found, truth)
    assert (found.position, found.history.learned(found.position)) == (60, 48)
    for kill in (7, 10):  # before the bad batch and again after going back, or later
        taught(tmp_path, f"killed{kill}", 12, rules, bad, kill=kill)
        again, later = taught(tmp_path, f"killed{kill}", 12, rules, bad)
        assert_equal(again, found)
        assert again.history == found.history and len(skips(later)) == (kill == 7)


def test_what_is_bad_again_goes_back_further_and_ends_the_run(tmp_path: Path) -> None:
    """From step 6 it was sent on before, so then from step 3; then there is nothing to go back to."""
    tokens(tmp_path)
    rules = section(not_finite="rewind", ahead=0, patience=2, window=30)
    found, events = taught(tmp_path, "a", 12, rules, {30: math.nan, 34: math.nan})
    assert skips(events) == [(8, 6, 24, 8), (7, 3, 12, 24)] and found.history.skipped == ((12, 36),)
    truth, _ = taught(tmp_path, "truth", 12, rules, gap=(12, 36))
    assert_equal(found, truth)
    assert sorted(path.name[-2:] for path in (tmp_path / "a").glob("step-*")) == ["03", "06", "09", "12"]
    with pytest.raises(UserError, match=r"loss nan .* at step 1, and 2 of the last .* fewer than train.guard.patience"):
        taught(tmp_path, "b", 12, rules, {0: math.nan, 4: math.nan, 8: math.nan})


def test_another_mixture_is_no_spike(tmp_path: Path) -> None:
    """From row 32 on all is loud. Where a mixture begins there, that is what it is like; also one that begins
    where training was sent past after going back."""
    tokens(tmp_path)
    loud = {4 * i: 1e4 for i in range(8, 60)}
    with pytest.raises(UserError, match=r"gradient norm .* at step 9, and 3 of the last"):
        taught(tmp_path, "as one", 16, section(patience=3), loud)
    for turn, bad in ((32, {}), (33, {}), (34, {28: math.nan})):
        rules = section(patience=3, not_finite="rewind")
        found, _ = taught(tmp_path, f"turn {turn}", 16, rules, loud | bad, turns=(turn,))
        assert found.step == 16 and len(found.history.skipped) == len(bad)


def test_a_run_of_bad_batches_ends_and_the_rule_to_stop_stops(tmp_path: Path) -> None:
    tokens(tmp_path)
    bad = {4 * i: math.nan for i in range(7, 40)}
    with pytest.raises(UserError, match=r"loss nan .* at step 8, and 3 of the last .* last checkpoint is of step 6"):
        taught(tmp_path, "many", 12, section(patience=3), bad)
    with pytest.raises(UserError, match=r"loss nan .* at step 8, and 7 of the last"):  # more than the window holds
        taught(tmp_path, "more", 12, section(patience=7), bad)
    apart = {28: math.nan, 36: math.nan, 48: math.nan, 56: math.nan, 68: math.nan}  # never three in five
    found, _ = taught(tmp_path, "apart", 16, section(patience=2), apart)
    assert len(found.history.skipped) == 5
    with pytest.raises(UserError, match=r"loss nan with gradient norm nan at step 8; the last checkpoint is of step 6"):
        taught(tmp_path, "stop", 12, section(not_finite="stop"), bad)
    with pytest.raises(UserError, match=r"gradient norm .* \(median of 4 steps: .*\) at step 8"):
        taught(tmp_path, "spike", 12, section(spike="stop"), {28: 1e4})
    _, events = taught(tmp_path, "ignore", 12, section(spike="ignore"), {28: 1e4})
    assert not skips(events)


numbers = st.floats(0.1, 10, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers), max_size=9), numbers, numbers, st.integers(1, 6), st.floats(1, 4))
def test_what_is_far_is_far_by_a_sorted_list(
    recent: list[tuple[float, float]], loss: float, norm: float, window: int, factor: float
) -> None:
    def middle(values: list[float]) -> float:
        values = sorted(values)
        return (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2

    rules = Guard(window=window, factor=factor, spike="rewind")
    losses, norms = [a for a, _ in recent[-window:]], [b for _, b in recent[-window:]]
    far = len(losses) == window and (
        norm > factor * middle(norms)
        or loss - middle(losses) > factor * middle([abs(a - middle(losses)) for a in losses])
    )
    assert judged(rules, recent, loss, norm)[0] == ("rewind" if far else "take")
    assert judged(rules, recent, loss, math.inf)[0] == "skip"


@ranks(4)
def all_decide_alike(folder: Path) -> None:
    """On every layout each rank sees the same losses and norms to the last bit, passes over what one process does, and
    goes on so on another layout; one of the bad samples is one rank's alone."""
    rules, bad = section(spike="rewind", ahead=0), {30: 1e4, 41: math.nan}
    alone, events = taught(folder, f"alone{dist.get_rank()}", 12, rules, bad)
    expected = skips(events)
    assert expected == [(8, 6, 24, 8), (9, 8, 40, 4)]
    layouts = [Layout(replicate=2, shard=2), Layout(shard=2, tp=2)]
    for layout, name in zip(layouts, "ab", strict=True):
        whole, events = taught(folder, name, 12, rules, bad, on=Ranks.of(layout, "cpu"))
        gathered: list[object] = [None] * 4
        dist.all_gather_object(gathered, [whole.recent, whole.history, whole.position, skips(events)])
        assert all(one == gathered[0] for one in gathered)
        assert skips(events) == expected and whole.history == alone.history and whole.position == alone.position
        assert np.allclose(whole.recent, alone.recent, rtol=1e-11, atol=0)
    taught(folder, "moves", 12, rules, bad, on=Ranks.of(layouts[0], "cpu"), kill=11)
    moved, later = taught(folder, "moves", 12, rules, bad, on=Ranks.of(layouts[1], "cpu"))
    assert not skips(later) and moved.history == alone.history
    assert np.allclose(moved.recent, alone.recent, rtol=1e-11, atol=0)


def test_all_ranks_decide_alike_on_every_layout(tmp_path: Path) -> None:
    tokens(tmp_path)
    all_decide_alike(tmp_path)


def test_a_full_disk_takes_older_checkpoints_and_then_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with room for two checkpoints, then for one."""
    tokens(tmp_path)
    room, sync = 2, os.fsync

    def fsync(handle: int) -> None:
        if len(list((tmp_path / "a").glob("*step-*"))) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    state, events = taught(tmp_path, "a", 12, section())
    told = [event.text for event in events if isinstance(event, Notice)]
    assert state.step == 12 and len(told) == 2 and all("the disk is full" in text for text in told)
    assert [path.name[-2:] for path in sorted((tmp_path / "a").glob("step-*"))] == ["09", "12"]
    room = 1
    with pytest.raises(DiskFullError, match="the disk is full"):
        taught(tmp_path, "a", 18, section())
    found, damaged = newest(tmp_path / "a")
    assert found is not None and found.name == "step-00000012" and not damaged

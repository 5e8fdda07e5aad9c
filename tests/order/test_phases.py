"""Closed form and twin: weights that change, ramps that carry remainders, sources that run dry, and a counter."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.order.order import BLOCK, History, Order, Segment
from pretrain.order.phases import by_size, changes, epochs, from_position, lay_out, spread
from pretrain.recipe.train import Phase

MUTANTS = [
    ("src/pretrain/order/phases.py", "part = (i + 0.5) / STAIRS", "part = i / STAIRS"),
    ("src/pretrain/order/phases.py", "new = [max(count, int(e))", "new = [int(e)"),
    ("src/pretrain/order/phases.py", "late[: max(high - start - sum(new), 0)]", "late[:0]"),
    ("src/pretrain/order/phases.py", "given = new", "given = given"),
    ("src/pretrain/order/phases.py", "** (1 / temperature)", "** temperature"),
    ("src/pretrain/order/phases.py", "given[name] >= rows}", "given[name] > rows}"),
    ("src/pretrain/order/phases.py", "given[name] > rows for", "given[name] >= rows for"),
    ("src/pretrain/order/phases.py", "in weights and name not in dry", "in weights"),
    ("src/pretrain/order/phases.py", "said |= phase.weights", "said = dict(phase.weights)"),
]


def fresh(rows: dict[str, int]) -> Order:
    return Order(5, rows, History(()))


def test_a_phase_keeps_the_weights_that_it_does_not_say() -> None:
    phases = [Phase(0.5, {"b": 0.0, "c": 3.0}), Phase(0.75, {"a": 7.0})]
    every = changes({"a": 1.0, "b": 2.0, "c": 1.0}, phases, lambda share: round(1000 * share))
    assert from_position(every, 0) == [
        (0, {"a": 1.0, "b": 2.0, "c": 1.0}),
        (500, {"a": 1.0, "b": 0.0, "c": 3.0}),
        (750, {"a": 7.0, "b": 0.0, "c": 3.0}),
    ]
    assert from_position(every, 600) == [(600, {"a": 1.0, "b": 0.0, "c": 3.0}), every[-1]]


def test_a_linear_change_gives_the_area_under_the_line_also_to_a_source_of_one_in_a_million() -> None:
    length, start, over = 1600 * BLOCK, 0.25, 0.5
    before, after = {"web": 0.9, "books": 0.1, "rare": 0.0}, {"web": 0.2 - 1e-6, "books": 0.8, "rare": 1e-6}
    every = changes(before, [Phase(start, after, over)], lambda share: round(length * share))
    order = fresh({"web": 10**9, "books": 10**6, "rare": 3})
    order = Order(5, order.rows, lay_out(order, from_position(every, 0), length, {}, ""))
    at = {share: order.consumed(round(length * share)) for share in (0.25, 0.5, 0.75, 1.0)}
    for name in before:
        old, new = before[name], after[name]
        middle = (old + new) / 2
        assert at[0.5][name] - at[0.25][name] == pytest.approx(0.25 * length * (old + middle) / 2, abs=2.1)
        assert at[0.75][name] - at[0.25][name] == pytest.approx(0.5 * length * middle, abs=1.1)
        assert at[1.0][name] - at[0.75][name] == pytest.approx(0.25 * length * new, abs=1.1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-6, 1), st.sampled_from([0.0, 1e-6, 1e-5, 0.3, 1.0, 2.0])), min_size=2, max_size=8),
    st.integers(32, 400_000),
)
@example([(1, 1), (0.003, 0), (0.001, 0.001), (0.0002, 0), (0.001, 0), (1, 1), (0.001, 0.001), (1, 1)], 27_529)
def test_stairs_are_whole_rows_that_never_go_back_and_follow_the_line(
    ends: list[tuple[float, float]], rows: int
) -> None:
    before, after = ({str(i): pair[k] for i, pair in enumerate(ends)} for k in (0, 1))
    if not sum(after.values()):
        return
    every = changes(before, [Phase(0.0, after, 1.0)], lambda share: round(rows * share))[1:]
    given = dict.fromkeys(before, 0.0)
    exact = dict.fromkeys(before, 0.0)
    for i, ((low, stair), (high, _)) in enumerate(pairwise(every)):
        assert all(weight >= 0 and weight == int(weight) for weight in stair.values()), "no row is taken back"
        part = (i + 0.5) / 32
        for name in before:
            line = before[name] / sum(before.values()) * (1 - part) + after[name] / sum(after.values()) * part
            exact[name] += line * (high - low)
            given[name] += stair[name]
            assert abs(given[name] - exact[name]) < 1 + 1e-6
        assert abs(sum(given.values()) - high) <= 1, "where several are ahead at once, a row more"


def test_weights_by_size_at_a_temperature() -> None:
    rows = {"en": 8_000, "de": 500, "de/1": 500, "sw": 1}
    even = dict.fromkeys(("en", "de", "sw"), 1.0)
    assert by_size(even, rows, 1) == {"en": 8000, "de": 1000, "sw": 1}
    assert by_size({**even, "sw": 2.0}, rows, 3) == pytest.approx({"en": 20, "de": 10, "sw": 2})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0.01, 1)), min_size=2, max_size=6),
    st.lists(st.floats(0.1, 3), min_size=1, max_size=5),
    st.integers(1, 9000),
)
def test_no_source_is_read_more_often_than_it_may_and_others_share_in_proportion(
    sources: list[tuple[int, float]], caps: list[float], end: int
) -> None:
    rows = {f"s{i}": size for i, (size, _) in enumerate(sources)} | {"rest": 500}
    weights = {f"s{i}": weight for i, (_, weight) in enumerate(sources)} | {"rest": 0.5}
    most = {f"s{i}": int(cap * rows[f"s{i}"]) for i, cap in enumerate(caps) if f"s{i}" in rows}
    history = lay_out(fresh(rows), [(0, weights)], end, most, "")
    order = Order(5, rows, history)
    source = np.array(order.sources)[order.at(np.arange(end))[0]]
    given = {name: int((source == name).sum()) for name in rows}
    assert all(given[name] <= count for name, count in most.items())
    for segment in history.segments:
        gone = {name for name, count in most.items() if segment.consumed[name] >= count}
        assert segment.weights == {name: 0.0 if name in gone else weight for name, weight in weights.items()}
        assert all(segment.consumed[name] == most[name] for name in gone), "not a row less than it may"


def test_where_every_source_runs_dry_it_is_said() -> None:
    with pytest.raises(UserError, match=r"every source has run dry at row 90 of 100; expected fewer steps, more text"):
        lay_out(fresh({"a": 30, "b": 20}), [(0, {"a": 1.0, "b": 1.0})], 100, {"a": 60, "b": 30}, "")


def test_a_source_is_its_strata_in_proportion_until_one_runs_dry() -> None:
    rows = {"web": 300, "web/1": 100, "books": 50, "gone": 9}
    assert spread({"web": 2.0, "books": 1.0}, rows, ()) == {"web": 1.5, "web/1": 0.5, "books": 1.0}
    assert spread({"web": 2.0, "books": 1.0}, rows, {"web"}) == {"web": 0.0, "web/1": 2.0, "books": 1.0}


def test_epochs_are_told_by_source() -> None:
    order = Order(0, {"a": 100, "a/1": 100, "b": 50}, History((Segment(0, {"a": 1.0, "a/1": 1.0, "b": 2.0}, {}),)))
    read = epochs(order, [0, 2 * BLOCK, 3 * BLOCK])
    assert read == {"a": [BLOCK / 200, BLOCK / 400], "b": [BLOCK / 50, BLOCK / 100]}


@pytest.mark.slow
def test_ten_million_rows_in_three_phases_as_a_counter_counts_them() -> None:
    """No row twice in an epoch, none left out, each share within a row at every block's end."""
    rows = {"web": 6_000_000, "books": 1_500_000, "code": 70_000, "rare": 4}
    weights = [
        {"web": 0.7, "books": 0.2, "code": 0.1 - 1e-6, "rare": 1e-6},
        {"web": 0.5, "books": 0.5 - 1e-6, "code": 0.0, "rare": 1e-6},
        {"web": 0.1, "books": 0.8 - 1e-6, "code": 0.1, "rare": 1e-6},
    ]
    starts, length = [0, 1000 * BLOCK, 1700 * BLOCK], 10_000_000
    history = lay_out(fresh(rows), list(zip(starts, weights, strict=True)), length, {}, "")
    order = Order(5, rows, history)
    visits: dict[str, list[np.ndarray]] = {name: [] for name in rows}
    counts: list[np.ndarray] = []
    for low in range(0, length, 16 * BLOCK):
        source, epoch, row = order.at(np.arange(low, min(low + 16 * BLOCK, length)))
        cells = np.bincount(np.arange(len(source)) // BLOCK * len(rows) + source, minlength=16 * len(rows))
        counts.append(cells.reshape(16, len(rows)))
        for i, name in enumerate(order.sources):
            visits[name].append(epoch[source == i] * rows[name] + row[source == i])
    for name, size in rows.items():
        every = np.concatenate(visits[name])
        seen = np.bincount(every)
        assert seen.max() == 1, "no row twice in an epoch"
        assert seen[: len(every) // size * size].all(), "and none left out before the next epoch"
    blocks = np.concatenate(counts)
    for start, stop, share in zip(starts, [*starts[1:], length], weights, strict=True):
        total = np.cumsum(blocks[start // BLOCK : stop // BLOCK], 0)
        ends = np.arange(1, len(total) + 1)[:, None] * BLOCK
        exact = ends * np.array([share[name] for name in order.sources])
        assert (total.sum(1) == ends[:, 0]).all() and np.abs(total - exact).max() <= 1 + 1e-4
    assert len(np.concatenate(visits["rare"])) in range(8, 13)

"""Twin and property: every row once an epoch, shares within one row, and nothing but the position matters."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.order.batch import Data
from pretrain.order.loader import Loader
from pretrain.order.order import BLOCK, CHUNK, WHOLE, History, Order, Segment, quotas, shuffled, whole_parts
from pretrain.order.pack import Rows
from pretrain.shards.write import ShardWriter

MUTANTS = [
    ("src/pretrain/order/order.py", "range(since[enough], blocks", "range(blocks, blocks"),
    ("src/pretrain/order/order.py", "- fallen.sum(1) - to_come", "- fallen.sum(1)"),
    ("src/pretrain/order/order.py", "(fallen[i] + 1) * WHOLE * WHOLE // parts[i], i)", "i)"),
    ("src/pretrain/order/order.py", "since[i] <= ends[end] and", ""),
    ("src/pretrain/order/order.py", "np.repeat(before - bounds + each, each)", "np.repeat(each - bounds, each)"),
    ("src/pretrain/order/order.py", "moved // CHUNK + after", "moved // CHUNK"),
    ("src/pretrain/order/order.py", "[a + b for a, b in zip(self.before_start", "[b for a, b in zip(self.before_start"),
    ("src/pretrain/base/random.py", "range(ROUNDS - 1, -1, -1)\n    return", "range(ROUNDS)\n    return"),
    ("src/pretrain/order/batch.py", "read.tokens[:, 1:]", "read.tokens[:, :-1]"),
]


def clerk(parts: list[int], blocks: int) -> list[int]:
    """Block by block: what has fallen due, never less than before, then one more to those whose next is due first."""
    counts = [0] * len(parts)
    for rows in range(BLOCK, blocks * BLOCK + 1, BLOCK):
        floors = [rows * part // WHOLE for part in parts]
        counts = [max(count, floor) for count, floor in zip(counts, floors, strict=True)]
        due = [i for i, part in enumerate(parts) if part and counts[i] == floors[i]]
        due.sort(key=lambda i: ((floors[i] + 1) * WHOLE * WHOLE // parts[i], i))
        for i in due[: rows - sum(counts)]:
            counts[i] += 1
    return counts


share = st.one_of(st.floats(1e-9, 1), st.sampled_from([0.0, 1e-6, 0.5, 1.0, 3.0]))


@settings(max_examples=60, deadline=None)
@given(st.lists(share, min_size=1, max_size=12).filter(sum), st.integers(0, 400))
@example([13, 13, 1, 7, 60, 30, 13, 7], 7)  # here the shares alone, without the counts before, take a row back
@example([1e-5, 2e-5, 1, 2], 27)  # and here a source got ahead before those that are more urgent at the end fell due
def test_quotas_of_any_block_are_a_clerks_who_went_through_them_all(weights: list[float], blocks: int) -> None:
    assert quotas(whole_parts(weights), blocks) == clerk(whole_parts(weights), blocks)


@settings(max_examples=40, deadline=None)
@given(st.lists(share, min_size=1, max_size=40).filter(sum), st.integers(0, 2**24))
@example([1e-6] * 39 + [1], 244)  # many that are rare fall due together
def test_shares_are_met_within_one_row_and_no_quota_is_negative(weights: list[float], block: int) -> None:
    """Also far into a run, at a cost that does not grow."""
    parts = whole_parts(weights)
    before, after = quotas(parts, block), quotas(parts, block + 1)
    assert sum(after) == (block + 1) * BLOCK and all(a <= b for a, b in zip(before, after, strict=True))
    assert all(abs(rows * WHOLE - (block + 1) * BLOCK * part) <= WHOLE for rows, part in zip(after, parts, strict=True))


@pytest.mark.parametrize("rows", [1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_an_epoch_visits_every_row_once(rows: int) -> None:
    every, first = np.arange(rows), np.zeros(rows, np.int64)
    one, two = (shuffled(every, first, np.array([rows]), [("web", epoch)], 5) for epoch in (0, 1))
    assert np.array_equal(np.sort(one), np.arange(rows)) and np.array_equal(np.sort(two), np.arange(rows))
    assert rows < 7 or not np.array_equal(one, two)


def test_a_long_run_with_changed_shares_counts_like_a_clerk() -> None:
    rows = {"web": 50_000, "books": 900, "rare": 40}
    weights = [{"web": 0.7, "books": 0.3, "rare": 1e-6}, {"web": 0.2, "books": 0.8}, {"rare": 1.0, "web": 1.0}]
    history, at, length = History((Segment(0, weights[0], {}),)), 0, 200_000
    for cut, new in zip((70_001, 130_000), weights[1:], strict=True):
        history = Order(3, rows, history).changed(cut, new, "")
    order = Order(3, rows, History.from_json(history.to_json()))
    source, epoch, row = order.at(np.arange(length))
    clerk: Counter[int] = Counter()
    for start, stop, share in zip((0, 70_001, 130_000), (70_001, 130_000, length), weights, strict=True):
        total = sum(share.values())
        for i, name in enumerate(order.sources):
            seen = int((source[start:stop] == i).sum())
            assert abs(seen - (stop - start) * share.get(name, 0) / total) <= BLOCK  # a block may be cut in two
            clerk[i] += seen
    for i, name in enumerate(order.sources):
        size = rows[name]
        visits = np.stack([epoch[source == i], row[source == i]], 1)
        assert len(np.unique(visits, axis=0)) == clerk[i], "no row twice in an epoch"
        assert clerk[i] == 0 or visits[:, 0].max() == (clerk[i] - 1) // size, "no epoch before the last was filled"
        assert order.consumed(length)[name] == clerk[i]
    for at in (0, 69_999, 70_001, 150_000):
        again = Order(3, rows, history).at(np.arange(at, at + 50))
        assert all(np.array_equal(a, b[at : at + 50]) for a, b in zip(again, (source, epoch, row), strict=True))


def test_a_share_of_one_in_a_million_is_exact() -> None:
    order = Order(0, {"web": 10**9, "rare": 10**9}, History((Segment(0, {"web": 1 - 1e-6, "rare": 1e-6}, {}),)))
    assert order.consumed(100_000 * BLOCK)["rare"] == pytest.approx(409.6, abs=1)


def test_fifteen_trillion_tokens_cost_no_memory() -> None:
    """Forty sources, far into the run: what is kept of the order is a few numbers a source."""
    rows = {f"s{i:02}": 10**8 + i for i in range(40)}
    tracemalloc.start()
    order = Order(0, rows, History((Segment(0, {name: 0.8**i for i, name in enumerate(rows)}, {}),)))
    order.consumed(7 * 10**9)
    for low in range(7 * 10**9, 7 * 10**9 + 20 * BLOCK, BLOCK):
        order.at(np.arange(low, low + 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_where_a_row_stands_in_an_epoch_is_uniform() -> None:
    """Over many epochs, of a source of a few rows and of one of several chunks; and of a source in a block."""
    few, epochs = 11, 4000
    visit = np.repeat(np.arange(epochs), few)
    visits, place = [("a", epoch) for epoch in range(epochs)], np.tile(np.arange(few), epochs)
    there = shuffled(place, visit, np.full(epochs, few), visits, 1)
    cells = np.bincount(place * few + there, minlength=few * few)
    assert ((cells - epochs / few) ** 2 / (epochs / few)).sum() < 170  # 100 degrees of freedom: p < 2e-5
    rows = 6 * CHUNK
    there = shuffled(np.full(epochs, CHUNK + 5), np.arange(epochs), np.full(epochs, rows), visits, 1)
    cells = np.histogram(there, bins=40, range=(0, rows))[0]
    assert ((cells - 100) ** 2 / 100).sum() < 85  # 39 degrees of freedom: p < 3e-5
    order = Order(3, {"a": 10**6, "b": 10**6}, History((Segment(0, {"a": 3.0, "b": 1.0}, {}),)))
    slots = np.flatnonzero(order.at(np.arange(200 * BLOCK))[0] == 1) % BLOCK
    counts = np.histogram(slots, bins=64, range=(0, BLOCK))[0]
    expected = 200 * BLOCK / 4 / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # 63 degrees of freedom, and fewer: p < 2e-5


def test_neighbours_in_a_run_come_from_everywhere() -> None:
    order = Order(1, {"a": 8000}, History((Segment(0, {"a": 1.0}, {}),)))
    rows = order.at(np.arange(8000))[2]
    counts = np.histogram(rows[:1000], bins=20, range=(0, 8000))[0]
    assert ((counts - 50) ** 2 / 50).sum() < 60  # 19 degrees of freedom: p < 1e-5


@pytest.fixture
def data(tmp_path: Path) -> Data:
    rows = {}
    for number, name in enumerate(("a", "b")):
        writer = ShardWriter(tmp_path / name, vocab_size=1000, shard_tokens=200, end=0)
        for i in range(30):
            writer.add(f"{i:032x}", np.arange(17) + 1 + 20 * i + 500 * number - (400 if number and i > 20 else 0))
        writer.close()
        rows[name] = Rows(tmp_path / name, 8)
    order = Order(2, {name: len(r) for name, r in rows.items()}, History((Segment(0, {"a": 2.0, "b": 1.0}, {}),)))
    return Data(order, rows, sequence=4)


def test_a_batch_is_made_of_the_shards_tokens(data: Data) -> None:
    batch = data.batch(10, 6)
    assert batch.tokens.shape == batch.targets.shape == (12, 4)
    source, _, row = data.order.at(np.arange(10, 16))
    for i in range(6):
        tokens, documents = data.rows[data.order.sources[source[i]]].read(int(row[i]))
        assert np.array_equal(batch.tokens[2 * i : 2 * i + 2].ravel(), tokens[:-1])
        assert np.array_equal(batch.targets[2 * i : 2 * i + 2].ravel(), tokens[1:])
        ends = np.flatnonzero(tokens[:-1] == 0)
        assert np.array_equal(np.flatnonzero(np.diff(documents)), ends), "a document ends with its end token"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_ranks_divide_a_batch_and_do_not_change_it(data: Data, ranks: int) -> None:
    whole = data.batch(5, 12)
    parts = [data.batch(5, 12, rank, ranks) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        mine = np.isin(whole.rows // (data.row // data.sequence), np.arange(5 + rank, 17, ranks))
        assert np.array_equal(part.tokens, whole.tokens[mine]) and np.array_equal(part.rows, whole.rows[mine])


LEGS = [  # (steps, rows in a step, ranks, weights from here on, or None for those before)
    [(5, 12, 2, None), (5, 12, 8, None), (8, 12, 1, None)],  # another number of ranks, a second resume
    [(30, 12, 4, None), (9, 12, 8, None)],  # in the third epoch
    [(7, 12, 1, None), (5, 24, 4, None), (3, 8, 8, None), (4, 16, 2, None)],  # other batches
    [(7, 12, 4, None), (7, 8, 8, {"a": 1.0, "b": 5.0}), (20, 16, 1, None), (4, 8, 2, {"b": 1.0})],  # other mixtures
]


@pytest.mark.parametrize("legs", LEGS)
def test_a_run_in_legs_sees_the_rows_of_one_that_never_stopped(data: Data, legs: list) -> None:
    """All that is carried over is the position and the history, as JSON; ranks read in any order, in parts."""
    position, history, seen = 0, json.dumps(data.order.history.to_json()), dict[int, np.ndarray]()
    for steps, rows, ranks, weights in legs:
        order = Order(2, data.order.rows, History.from_json(json.loads(history)))
        if weights is not None:
            order = Order(2, order.rows, order.changed(position, weights, "new"))
        here = Data(order, data.rows, data.sequence)
        for _ in range(steps):
            for rank in reversed(range(ranks)):
                batch = here.batch(position, rows, rank, ranks)
                for part in (batch.part(0, 1), batch.part(1, len(batch.rows))):
                    numbers = part.rows // (here.row // here.sequence)
                    for number, tokens in zip(numbers.tolist(), part.tokens, strict=True):
                        seen[number] = np.concatenate([seen.get(number, tokens[:0]), tokens])
            position += rows
        history = json.dumps(order.history.to_json())
    whole = Data(Order(2, data.order.rows, History.from_json(json.loads(history))), data.rows, data.sequence)
    straight = whole.batch(0, position).tokens.reshape(position, -1)
    assert sorted(seen) == list(range(position)), "each position once, none left out"
    assert all(np.array_equal(seen[number], straight[number]) for number in range(position))
    source, epoch, row = whole.order.at(np.arange(position))
    visits = np.stack([source, epoch, row], 1)
    assert len(np.unique(visits, axis=0)) == position, "no row twice in an epoch, over all changes"
    for i, name in enumerate(whole.order.sources):
        own = np.sort(row[(source == i) & (epoch < epoch[source == i].max())])
        assert np.array_equal(own, np.repeat(np.arange(data.order.rows[name]), epoch[source == i].max()))


def test_how_far_the_loader_reads_ahead_changes_nothing(data: Data) -> None:
    for ahead in (1, 5):
        with Loader(data, 3, 4, ahead=ahead) as loader:
            for position, batch in zip((3, 7, 11), loader, strict=False):
                assert np.array_equal(batch.tokens, data.batch(position, 4).tokens)


def test_the_loader_reads_what_the_positions_say_and_stops(data: Data) -> None:
    with Loader(data, 3, 4) as loader:
        for position, batch in zip((3, 7, 11), loader, strict=False):
            assert np.array_equal(batch.tokens, data.batch(position, 4).tokens)


def test_the_loader_hands_on_what_goes_wrong(data: Data) -> None:
    broken = Data(data.order, {"a": data.rows["a"]}, 4)
    with Loader(broken, 0, 4) as loader, pytest.raises(KeyError):
        for _ in loader:
            pass


def test_too_little_text_is_said(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, vocab_size=1000, shard_tokens=200, end=0)
    writer.add("0" * 32, np.arange(5))
    writer.close()
    with pytest.raises(UserError, match="6 tokens fill no row of 8"):
        Rows(tmp_path, 8)


def test_the_order_of_sources_in_a_recipe_says_nothing() -> None:
    history = History((Segment(0, {"b": 2.0, "a": 1.0}, {}),))
    one, other = (Order(0, rows, history) for rows in ({"a": 30, "b": 50}, {"b": 50, "a": 30}))
    assert one.sources == other.sources == ("a", "b")
    with_a_later = Order(0, {"b": 50, "aa": 7, "a": 30}, history)
    for left, right in zip(one.at(np.arange(500))[1:], with_a_later.at(np.arange(500))[1:], strict=True):
        assert np.array_equal(left, right), "a source that is not drawn yet moves nothing"

"""Twin and property: rows hold what a reader of plain lists would put there; best fit as a search through all rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import DamagedError, UserError
from pretrain.order.batch import Data, doublings, restarting
from pretrain.order.best_fit import best_fit, table_name, write_table
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows, Span, Windows
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard
from pretrain.shards.write import ShardWriter

MUTANTS = [
    ("src/pretrain/order/batch.py", "first.ravel() // shortest", "first.ravel() // sequence"),
    ("src/pretrain/order/best_fit.py", "np.argsort(-lengths, kind", "np.argsort(lengths, kind"),
    ("src/pretrain/order/best_fit.py", "(enough & -enough).bit_length() - 1", "enough.bit_length() - 1"),
    ("src/pretrain/order/best_fit.py", "rest = lengths - whole * row", "rest = lengths"),
    ("src/pretrain/order/pack.py", "if at and start:", "if start:"),
    ("src/pretrain/order/pack.py", "weights[at - 1 :] = 0", "weights[at:] = 0"),
    (
        "src/pretrain/order/pack.py",
        "every[starts]",
        "every[starts - (starts > 0)]",
    ),
    ("src/pretrain/order/pack.py", "shard.check(start, start + length)", "pass"),
    ("src/pretrain/order/pack.py", "shard.check(low + start, low + stop + more)", "pass"),
    ("src/pretrain/order/pack.py", "starts + np.array([[1], [length]])", "starts + np.array([[0], [length]])"),
    ("src/pretrain/order/pack.py", "(row_ends - length - starts)[row]", "(row_ends - starts)[row]"),
    ("src/pretrain/order/pack.py", "min(stop, high) - low", "high - low"),
    ("src/pretrain/order/pack.py", "first + -(-stop // self.row)", "first + stop // self.row"),
    ("src/pretrain/order/batch.py", "np.maximum.accumulate(first, axis=1)", "first"),
    ("src/pretrain/order/batch.py", "if start <= position", "if start < position"),
    ("src/pretrain/order/batch.py", "positions[0] // STRETCH * STRETCH", "positions[0]"),
]
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30)
RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)


def written(folder: Path, lengths: list[int], *, packed: int | None = None) -> list[list[int]]:
    """Shards of documents with distinct tokens, which are returned, each closed by 0."""
    writer, documents, at = ShardWriter(folder, vocab_size=60_000, shard_tokens=120, end=0), list[list[int]](), 1
    for i, length in enumerate(lengths):
        documents.append([*range(at, at + length), 0])
        writer.add(f"{i:032x}", np.arange(at, at + length))
        at += length
    writer.close()
    for entry in Catalogue.load(folder).shards if packed else ():
        out = (folder / table_name(packed or 0) / entry.name).with_suffix(".npy")
        write_table(Shard(folder / entry.name), packed or 0, out)
    return documents


def slow_best_fit(lengths: list[int], row: int) -> Counter[tuple[int, ...]]:
    """The lengths of the pieces in each row: every piece looks through all rows for the least room that it fits."""
    rows: list[list[int]] = [[row] for length in lengths for _ in range(length // row)]
    for piece in sorted((length % row for length in lengths), reverse=True):
        fits = [one for one in rows if row - sum(one) >= piece]
        if piece and fits:
            min(fits, key=lambda one: row - sum(one)).append(piece)
        elif piece:
            rows.append([piece])
    return Counter(tuple(sorted(one)) for one in rows)


@RELAXED
@given(st.lists(st.integers(0, 70), min_size=1, max_size=60), st.integers(2, 24))
def test_best_fit_is_what_a_search_through_all_rows_finds(lengths: list[int], row: int) -> None:
    pieces = best_fit(np.array(lengths), row)
    rows: dict[int, list[int]] = {}
    for number, _, start, stop in pieces.tolist():
        rows.setdefault(number, []).append(stop - start)
    fill = {number: sum(sizes) for number, sizes in rows.items()}
    assert sorted(rows) == list(range(len(rows))) and max(fill.values(), default=0) <= row
    theirs = slow_best_fit(lengths, row)
    assert sum(theirs.values()) == len(rows)
    assert sorted(fill.values()) == sorted(sum(one) for one in theirs.elements())
    for document, length in enumerate(lengths):
        mine = pieces[pieces["document"] == document]
        assert [*mine["start"].tolist(), length] == [0, *mine["stop"].tolist()], "cut only where it is too long"
        assert len(mine) == -(-length // row)


@RELAXED
@given(LENGTHS, st.integers(2, 24), st.randoms())
@example([40, 3, 5, 0, 1], 8, None)
def test_windows_hold_the_running_text(tmp_path: Path, lengths: list[int], row: int, draw: object) -> None:
    documents = written(tmp_path, lengths)
    try:
        rows = Rows(tmp_path, row)
    except UserError:
        assert sum(map(len, documents)) < 2 * row + 120
        return
    expected: list[tuple[list[int], list[int], list[tuple[str, int, int]]]] = []
    number = 0
    for entry in rows.catalogue.shards:
        places = [(i, j) for i in range(number, number + entry.documents) for j in range(len(documents[i]))]
        number += entry.documents
        for start in range(0, len(places) - row, row):
            window = places[start : start + row + 1]
            spans: dict[int, list[int]] = {}
            for document, place in window[:-1]:
                spans.setdefault(document, []).append(place)
            said = [(f"{i:032x}", there[0], there[-1] + 1) for i, there in spans.items()]
            expected.append(([documents[i][j] for i, j in window], [i - window[0][0] for i, _ in window], said))
    assert len(rows) == len(expected)
    assert rows.dropped_tokens == sum(map(len, documents)) - row * len(rows)
    many = np.array([*range(len(rows)), *range(len(rows))][::-1])
    into = Windows.empty(len(many), row, padded=True)
    rows.fill(many, np.arange(len(many))[::-1], into)
    for place, n in zip(range(len(many))[::-1], many.tolist(), strict=True):
        tokens, numbers, spans_there = expected[n]
        assert into.tokens[place].tolist() == tokens and into.documents[place].tolist() == numbers
        assert rows.documents(n) == [Span(*one) for one in spans_there]
    assert (into.weights == 1).all()
    for i in range(len(documents)):
        assert rows.find(f"{i:032x}") == [n for n, one in enumerate(expected) if f"{i:032x}" in {s[0] for s in one[2]}]


@RELAXED
@given(LENGTHS, st.integers(2, 24))
@example([40, 3, 5, 0, 1], 8)
def test_packed_rows_keep_documents_apart(tmp_path: Path, lengths: list[int], row: int) -> None:
    """Every token of every document stands in one place; what counts is what its document, or a new one, says next."""
    documents = written(tmp_path, lengths, packed=row)
    rows = Rows(tmp_path, row, "best_fit")
    seen: dict[tuple[int, int], int] = Counter()
    for n in range(len(rows)):
        into = Windows.empty(1, row, padded=True)
        rows.fill(np.array([n]), np.zeros(1, np.int64), into)
        tokens, numbers, weights = into.tokens[0], into.documents[0], into.weights[0]
        places: list[tuple[int, int] | None] = []
        for k, span in enumerate(rows.documents(n)):
            document = int(span.id, 16)
            places += [(document, j) for j in range(span.start, span.stop)]
            assert n in rows.find(span.id)
            assert (numbers[len(places) - (span.stop - span.start) : len(places)] == k).all()
        padding = row - len(places)
        assert padding >= 0 and (weights[len(places) :] == 0).all()
        assert all(tokens[at] == documents[i][j] for at, (i, j) in enumerate(places))  # type: ignore[misc]
        assert (tokens[len(places) : row] == 0).all() and len(set(numbers[len(places) : row].tolist())) <= 1
        seen.update(places)  # type: ignore[arg-type]
        for at in range(len(places)):
            document, j = places[at]  # type: ignore[misc]
            if at + 1 < len(places):
                goes_on = places[at + 1] == (document, j + 1) or places[at + 1][1] == 0  # type: ignore[index]
            else:
                goes_on = not padding and j + 1 < len(documents[document])
                assert not goes_on or tokens[row] == documents[document][j + 1]
            assert weights[at] == goes_on
    assert seen == Counter((i, j) for i, document in enumerate(documents) for j in range(len(document)))
    total = sum(map(len, documents))
    assert rows.dropped_tokens == 0 and rows.padding == pytest.approx(1 - total / (len(rows) * row))


def data(folder: Path, packing: str, row: int, sequence: int, **more: object) -> Data:
    written(folder, [30, 5, 3, 60, 7, 7, 11, 2, 19] * 4, packed=row)
    rows = {"a": Rows(folder, row, packing)}
    order = Order(1, {"a": len(rows["a"])}, History((Segment(0, {"a": 1.0}, {}),)))
    return Data(order, rows, sequence, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", ["padding_free", "best_fit"])
def test_positions_start_anew_with_each_document(tmp_path: Path, packing: str) -> None:
    batch = data(tmp_path, packing, 16, 8, apart=True).batch(0, 6)
    assert batch.tokens.shape == (12, 8) and batch.positions.shape == (12, 8, 1)
    for documents, positions in zip(batch.documents.tolist(), batch.positions[..., 0].tolist(), strict=True):
        assert positions == [k - documents.index(one) for k, one in enumerate(documents)]
    assert np.array_equal(restarting(batch.documents), batch.positions[..., 0])
    together = data(tmp_path / "b", "contiguous", 16, 8).batch(0, 6)
    assert (together.positions[..., 0] == np.arange(8)).all()


def test_sequences_double_and_the_tokens_stay(tmp_path: Path) -> None:
    """Shorter sequences are the same rows, cut more often; few lengths, each for its share of the warm-up."""
    lengths = doublings(4, 16, 20)
    assert lengths == ((0, 4), (10, 8), (20, 16))
    assert doublings(16, 16, 20) == ((0, 16),)
    warm, plain = data(tmp_path, "contiguous", 16, 16, lengths=lengths), data(tmp_path / "b", "contiguous", 16, 16)
    for position, length in ((0, 4), (9, 4), (10, 8), (19, 8), (20, 16), (500, 16)):
        one, other = warm.batch(position, 3), plain.batch(position, 3)
        assert one.tokens.shape == (3 * 16 // length, length)
        for name in ("tokens", "targets"):
            assert np.array_equal(getattr(one, name).ravel(), getattr(other, name).ravel())
        assert (one.positions.max(), len(one.rows)) == (length - 1, len(one.tokens))
    numbers = np.concatenate([warm.batch(position, 2).rows for position in range(0, 200, 2)])
    assert len(np.unique(numbers)) == len(numbers), "what is drawn for a sample is drawn for no other, of any length"


def test_places_do_not_depend_on_how_they_are_asked_for(tmp_path: Path) -> None:
    found = data(tmp_path, "contiguous", 4, 4)
    positions = np.arange(4000, 4200)
    source, _, number = found.order.at(positions)
    assert all(np.array_equal(a, b) for a, b in zip(found.places(positions), (source, number), strict=True))
    some = positions[3::7]
    assert np.array_equal(found.places(some)[1], number[3::7])


def test_a_spoilt_token_is_met_before_it_is_learned_from(tmp_path: Path) -> None:
    for packing in ("contiguous", "best_fit"):
        folder = tmp_path / packing
        written(folder, [30] * 30, packed=8)
        rows = Rows(folder, 8, packing)
        path = folder / rows.catalogue.shards[1].name
        whole = bytearray(path.read_bytes())
        whole[-2 * rows.catalogue.shards[1].tokens] ^= 1
        path.write_bytes(whole)
        first = int(rows._firsts[1])
        rows.read(0)
        with pytest.raises(DamagedError, match=rf"{path.name}: tokens 0 to 8,192 differ from their check"):
            rows.read(first)
        path.unlink()
        with pytest.raises(DamagedError, match=rf"{path.name}: the shard is gone"):
            Rows(folder, 8, packing).read(first)


def test_missing_and_broken_tables_are_said(tmp_path: Path) -> None:
    written(tmp_path, [30] * 9)
    with pytest.raises(UserError, match=r"no table of best-fit rows; expected `pretrain run … --to tokens`"):
        Rows(tmp_path, 8, "best_fit")
    written(tmp_path, [30] * 9, packed=8)
    path = next((tmp_path / table_name(8)).iterdir())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DamagedError, match=r"npy: cannot be read"):
        Rows(tmp_path, 8, "best_fit")
    np.save(path, np.zeros(3))
    with pytest.raises(DamagedError, match="no table of best-fit rows; expected"):
        Rows(tmp_path, 8, "best_fit")

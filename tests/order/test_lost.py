"""Twin: without a shard, batches are what they were but for its rows, which count nothing; a line says what is lost."""

from pathlib import Path

import numpy as np
import pytest

from pretrain.base.errors import DamagedError
from pretrain.events.kinds import Lost
from pretrain.order.batch import Batch, Data
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard
from pretrain.shards.write import ShardWriter

MUTANTS = [
    ("src/pretrain/order/batch.py", "into.weights[place] = rows.catalogue.end or 0, 0, 0", "_ = 0, 0, 0"),
    ("src/pretrain/order/batch.py", "if entry.name not in self._lost", "if True"),
    ("src/pretrain/order/batch.py", "return self.lost is not None or any(", "return any("),
]
ROW = 8


def data(folder: Path, told: list[Lost] | None = None) -> Data:
    rows = {name: Rows(folder / name, ROW) for name in ("web", "books")}
    order = Order(
        0, {name: len(one) for name, one in rows.items()}, History((Segment(0, {"web": 2.0, "books": 1.0}, {}),))
    )
    return Data(order, rows, ROW, lost=None if told is None else told.append)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sources of several shards each."""
    number = 0
    for name, sizes in {"web": (90, 70, 200, 33), "books": (40, 300)}.items():
        writer = ShardWriter(tmp_path / name, vocab_size=2**16, shard_tokens=100, end=None)
        for size in sizes:
            number += 1
            writer.add(f"{number:032x}", np.arange(size) + 1000 * number)
        writer.close()
    return tmp_path


def batches(read: Data) -> list[Batch]:
    return [read.batch(position, 6, rank, 2) for position in range(0, 180, 6) for rank in (0, 1)]


def test_without_a_shard_its_rows_count_nothing(folder: Path) -> None:
    before = batches(data(folder))
    catalogue = Catalogue.load(folder / "web")
    entry = catalogue.shards[1]
    gone = set(Shard(folder / "web" / entry.name).tokens.tolist())
    (folder / "web" / entry.name).unlink()
    told: list[Lost] = []
    after, counted = batches(data(folder, told)), 0
    for one, other in zip(before, after, strict=True):
        lost = np.isin(one.tokens, list(gone)).all(1)
        assert np.array_equal(one.tokens[~lost], other.tokens[~lost])
        assert np.array_equal(one.targets[~lost], other.targets[~lost])
        assert np.array_equal(one.documents[~lost], other.documents[~lost])
        assert (
            (other.weights[lost] == 0).all() and (other.weights[~lost] == 1).all() and (other.tokens[lost] == 0).all()
        )
        assert np.array_equal(one.rows, other.rows) and one.sources == other.sources
        counted += lost.sum()
    assert counted > 10
    (event,) = told
    assert (event.source, event.documents, event.tokens) == ("web", entry.documents, entry.tokens)
    assert event.shard.endswith(entry.name) and event.why == "the shard is gone"
    line = r"shard: the shard is gone: \d documents of the source 'web', [\d]+ tokens; expected .* `pretrain run .*skip"
    with pytest.raises(DamagedError, match=line):
        batches(data(folder))


def test_a_damaged_shard_is_lost_as_well(folder: Path) -> None:
    entry = Catalogue.load(folder / "books").shards[0]
    path = folder / "books" / entry.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told: list[Lost] = []
    weights = [batch.weights for batch in batches(data(folder, told))]
    assert any((one == 0).all(1).any() for one in weights)
    assert [(event.source, event.documents) for event in told] == [("books", entry.documents)]
    assert "differ from their check" in told[0].why
    with pytest.raises(DamagedError, match=r"differ from their check: .* of the source 'books', .* tokens; expected"):
        batches(data(folder))

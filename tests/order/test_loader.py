"""Ordeal: the loader's batches are the positions', in order, whichever thread is late; an error comes in its turn."""

import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pretrain.base.errors import DamagedError
from pretrain.order.batch import Batch, Data
from pretrain.order.loader import Loader
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.shelf import Cache
from pretrain.shards.write import ShardWriter, write_catalogue

MUTANTS = [
    ("src/pretrain/order/loader.py", "position += rows * len(self._room)", "position += rows"),
    ("src/pretrain/order/loader.py", "position + i * rows", "position"),
    ("src/pretrain/order/loader.py", "self.waited += time.perf_counter() - start", "pass"),
    ("src/pretrain/order/loader.py", "position + FETCH_AHEAD", "position - FETCH_AHEAD"),
]


@pytest.fixture
def shards(tmp_path: Path) -> Catalogue:
    writer = ShardWriter(tmp_path / "tokens", vocab_size=60_000, shard_tokens=2000, end=0)
    for i in range(100):
        writer.add(f"{i:032x}", np.arange(99) + 100 * i + 1)
    writer.close()
    return Catalogue.load(tmp_path / "tokens")


def data_of(rows: Rows) -> Data:
    order = Order(3, {"a": len(rows)}, History((Segment(0, {"a": 1.0}, {}),)))
    return Data(order, {"a": rows}, rows.row)


def test_batches_come_in_order_and_the_loader_ends(shards: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch is read last of four."""
    data, batch, third = data_of(Rows(shards.folder, 8)), Data.batch, threading.Event()

    def late(self: Data, position: int, rows: int, rank: int = 0, ranks: int = 1) -> Batch:
        assert position != 5 or third.wait(10)
        found = batch(self, position, rows, rank, ranks)
        if position == 13:
            third.set()
        return found

    monkeypatch.setattr(Data, "batch", late)
    with Loader(data, 5, 4, threads=4) as loader:
        for position, found in zip(range(5, 85, 4), loader, strict=False):
            expected = batch(data, position, 4)
            assert np.array_equal(found.tokens, expected.tokens) and found.tokens.shape == (4, 8)
            assert np.array_equal(found.rows, expected.rows)
        assert loader.waited > 0
    assert not [one.name for one in threading.enumerate() if one.name.startswith("loader")]


def test_a_consumer_that_is_slower_waits_for_nothing(shards: Catalogue) -> None:
    with Loader(data_of(Rows(shards.folder, 8)), 0, 4) as loader:
        batches = iter(loader)
        next(batches)
        while any(ready.qsize() < 2 for ready in loader._ready):
            threading.Event().wait(0.001)
        before = loader.waited
        for _ in range(3):
            next(batches)
        assert loader.waited - before < 0.02


def test_a_shard_that_vanishes_or_rots_in_mid_run_is_named(shards: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.shards.shelf.OPEN", 1)
    path = shards.folder / shards.shards[2].name
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole)
    with Loader(data_of(Rows(shards.folder, 8)), 0, 4) as loader, pytest.raises(DamagedError) as error:
        for _ in loader:
            pass
    assert str(error.value).startswith(f"{path}: tokens 0 to 8,192 differ from their check")
    path.unlink()
    with Loader(data_of(Rows(shards.folder, 8)), 0, 4) as loader, pytest.raises(DamagedError) as error:
        for _ in loader:
            pass
    assert str(error.value).startswith(
        f"{path}: the shard is gone: 20 documents of the source 'a', 2,000 tokens; expec"
    )


def test_rows_of_a_store_are_fetched_before_they_are_read(
    shards: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every shard is asked for as far ahead as one block of the order; the batches are those of local files."""
    memory = fsspec.filesystem("memory")
    for entry in shards.shards:
        memory.pipe_file(f"/{tmp_path.name}/{entry.name}", (shards.folder / entry.name).read_bytes())
    away = Catalogue(tmp_path / "here", "uint16", 60_000, "", 0, shards.shards, f"memory://{tmp_path.name}")
    write_catalogue(away)
    cache = Cache(tmp_path / "cache", 2**20)
    data, local = data_of(Rows(away.folder, 8, "contiguous", cache)), data_of(Rows(shards.folder, 8))
    data.ahead(4096, 1)
    cache.close()
    (fetched,) = [path.name for path in cache.folder.iterdir()]
    number = int(local.order.at(np.array([4096]))[2][0])
    assert fetched == shards.shards[local.rows["a"]._shard_of(number)].name
    cache = Cache(tmp_path / "cache", 2**20)
    data = data_of(Rows(away.folder, 8, "contiguous", cache))
    ahead, asked = Data.ahead, list[int]()

    def seen(self: Data, position: int, rows: int) -> None:
        asked.append(position)
        ahead(self, position, rows)

    monkeypatch.setattr(Data, "ahead", seen)
    with Loader(data, 0, 4) as loader:
        for position, found in zip(range(0, 80, 4), loader, strict=False):
            assert np.array_equal(found.tokens, local.batch(position, 4).tokens)
    assert sorted(asked)[:20] == [4096 + position for position in range(0, 80, 4)]

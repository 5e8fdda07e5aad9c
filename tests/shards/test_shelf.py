"""Ordeal: shards of object stores come through a cache that stays small; what is gone or spoilt there is named."""

import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pretrain.base.errors import DamagedError, UserError
from pretrain.shards.catalogue import Catalogue, Entry
from pretrain.shards.shelf import OPEN, Cache, Shelf
from pretrain.shards.write import ShardWriter, write_catalogue

MUTANTS = [
    ("src/pretrain/shards/shelf.py", "if total <= self.most_bytes:", "if total:"),
    ("src/pretrain/shards/shelf.py", "total -= size", "total = 0"),
    ("src/pretrain/shards/shelf.py", "                        Shard(partial).verify()\n", ""),
    ("src/pretrain/shards/shelf.py", "if shard.digest != entry.digest:", "if False:"),
]
SHARDS, TOKENS = 12, 3000


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket of an S3 server of our own."""
    pytest.importorskip("s3fs", reason="s3fs (the extra `remote`) is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(fsspec.config.conf)
    options = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    fsspec.config.conf["s3"] = options
    fsspec.filesystem("s3").mkdir("shards")
    yield "s3://shards"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a folder of one's own."""
    root = "memory://" if request.param == "memory" else request.getfixturevalue("bucket") + "/"
    return f"{root}{tmp_path.name}"


@pytest.mark.parametrize("name", ["../up.shard", "/etc/up.shard", f"{'0' * 31}/.shard", "up.txt"])
def test_a_catalogue_names_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    entries = (Entry(name, 1, 1, "0" * 32),)
    write_catalogue(Catalogue(tmp_path, "uint16", 9, "", 0, entries))
    with pytest.raises(DamagedError, match=r"catalogue\.json: cannot be read; expected a catalogue of shards"):
        Catalogue.load(tmp_path)


@pytest.fixture
def remote(store: str, tmp_path: Path) -> Catalogue:
    """Twelve shards in a store, and a catalogue here that says so."""
    writer = ShardWriter(tmp_path / "made", vocab_size=60_000, shard_tokens=TOKENS, end=0)
    for i in range(SHARDS):
        writer.add(f"{i:032x}", np.arange(TOKENS) % 1000 + i)
    writer.close()
    made = Catalogue.load(tmp_path / "made")
    system, root = fsspec.core.url_to_fs(store)
    for entry in made.shards:
        system.pipe_file(f"{root}/{entry.name}", (tmp_path / "made" / entry.name).read_bytes())
    here = Catalogue(tmp_path / "here", made.dtype, made.vocab_size, "", 0, made.shards, store)
    write_catalogue(here)
    return Catalogue.load(tmp_path / "here")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_shards_are_read_and_the_cache_stays_small(remote: Catalogue, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 20_000)
    shelf = Shelf(remote, cache)
    for number in [*range(SHARDS), 3, 0]:
        tokens = shelf.shard(number).tokens
        assert np.array_equal(tokens, [*(np.arange(TOKENS) % 1000 + number), 0])
        assert size_of(cache.folder) <= 20_000
    names = {path.name for path in cache.folder.iterdir()}
    assert {remote.shards[n].name for n in (0, 3)} <= names, "the last used ones stay"
    Shelf(remote, cache).shard(3)
    shelf.shard(11)
    assert remote.shards[3].name in {path.name for path in cache.folder.iterdir()}, "used again, it is new again"
    Shelf(remote, Cache(cache.folder, 8000)).shard(7)
    assert {path.name for path in cache.folder.iterdir()} == {remote.shards[7].name}
    one = Cache(tmp_path / "tiny", 10)
    assert len(Shelf(remote, one).shard(5).tokens) == TOKENS + 1 and len(list(one.folder.iterdir())) == 1


def test_what_is_asked_for_ahead_is_there_when_it_is_read(remote: Catalogue, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**9)
    shelf = Shelf(remote, cache)
    shelf.ahead(range(4))
    cache.close()
    system, root = fsspec.core.url_to_fs(remote.at)
    for entry in remote.shards:
        system.rm(f"{root}/{entry.name}")
    assert [int(shelf.shard(n).tokens[0]) for n in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DamagedError, match=rf"{remote.at}/{remote.shards[4].name}: the shard is gone"):
        shelf.shard(4)


def test_what_is_spoilt_on_the_way_is_named_and_not_kept(remote: Catalogue, tmp_path: Path) -> None:
    system, root = fsspec.core.url_to_fs(remote.at)
    name = f"{root}/{remote.shards[2].name}"
    data = bytearray(system.cat_file(name))
    data[-9] ^= 4
    system.pipe_file(name, bytes(data))
    cache = Cache(tmp_path / "cache", 10**9)
    with pytest.raises(DamagedError, match=rf"{remote.at}/{remote.shards[2].name}: tokens 0 to .* from their check"):
        Shelf(remote, cache).shard(2)
    assert not list(cache.folder.iterdir())
    data[-9] ^= 4
    system.pipe_file(name, bytes(data))
    assert len(Shelf(remote, cache).shard(2).tokens) == TOKENS + 1


def test_threads_fetch_a_shard_once(remote: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrain.shards import shelf as module

    got, get = [], module._get
    monkeypatch.setattr(module, "_get", lambda url, path: (got.append(url), get(url, path)))
    cache = Cache(tmp_path / "cache", 10**9)
    threads = [threading.Thread(target=cache.fetch, args=(remote.place(remote.shards[0]), "x.shard")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_few_are_open_and_another_shard_under_the_name_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, vocab_size=100, shard_tokens=4, end=0)
    for i in range(OPEN + 9):
        writer.add(f"{i:032x}", np.array([i, i, i]))
    writer.close()
    catalogue = Catalogue.load(tmp_path)
    shelf = Shelf(catalogue)
    assert [int(shelf.shard(n).tokens[0]) for n in range(OPEN + 9)] == list(range(OPEN + 9))
    assert len(shelf._open) == OPEN
    first, second = (tmp_path / entry.name for entry in catalogue.shards[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(DamagedError, match="another shard than its catalogue says"):
        Shelf(catalogue).shard(0)
    remote = Catalogue(tmp_path, "uint16", 100, "", 0, catalogue.shards, "memory://nowhere")
    with pytest.raises(UserError, match="need a cache"):
        Shelf(remote).shard(0)

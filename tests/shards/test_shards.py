"""Property and ordeal: what is written is read; a flipped bit, a cut file, an old or missing catalogue are named."""

import json
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import DamagedError, UserError
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.format import BLOCK, dtype_for
from pretrain.shards.read import Shard
from pretrain.shards.write import ShardWriter

MUTANTS = [
    ("src/pretrain/shards/read.py", "range(start // BLOCK, -(-stop // BLOCK))", "range(start // BLOCK, stop // BLOCK)"),
    (
        "src/pretrain/shards/read.py",
        "range(start // BLOCK, -(-stop // BLOCK))",
        "range(start // BLOCK, start // BLOCK + 1)",
    ),
    (
        "src/pretrain/shards/read.py",
        "self.checks, self.bounds, self._ids) != self.digest",
        "self.checks, self.bounds, self._ids) == 0",
    ),
    ("src/pretrain/shards/write.py", "< self.vocab_size:", "<= self.vocab_size:"),
    ("src/pretrain/shards/format.py", "2**16 else", "2**15 else"),
]
DOCUMENTS = st.lists(st.lists(st.integers(0, 69_999), max_size=40), min_size=1, max_size=12)


def written(folder: Path, documents: list[list[int]], vocab: int, size: int = 50) -> Catalogue:
    writer = ShardWriter(folder, vocab_size=vocab, shard_tokens=size, end=7)
    for i, tokens in enumerate(documents):
        writer.add(f"{i:032x}", np.array(tokens, np.int64) % vocab)
    writer.close()
    return Catalogue.load(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(DOCUMENTS, st.sampled_from([60_000, 70_000]))
def test_documents_come_back(tmp_path: Path, documents: list[list[int]], vocab: int) -> None:
    catalogue = written(tmp_path, documents, vocab)
    read = []
    for entry in catalogue.shards:
        shard = Shard(tmp_path / entry.name)
        shard.verify()
        assert shard.tokens.itemsize == (2 if vocab <= 2**16 else 4) and len(shard.tokens) == entry.tokens
        for i, name in enumerate(shard.ids):
            read.append((name, shard.tokens[shard.bounds[i] : shard.bounds[i + 1]].tolist()))
    assert read == [(f"{i:032x}", [t % vocab for t in tokens] + [7]) for i, tokens in enumerate(documents)]
    assert catalogue.tokens == sum(map(len, documents)) + len(documents) and catalogue.documents == len(documents)


def test_the_layout_is_as_documented(tmp_path: Path) -> None:
    """A reader of ten lines, from the table in format.py alone."""
    entry = written(tmp_path, [list(range(50)), [3] * 9000, [5]], 100, size=10**6).shards[0]
    data = (tmp_path / entry.name).read_bytes()
    assert data[:8] == b"PTSHARD\x02"
    length = int.from_bytes(data[8:16], "little")
    head = json.loads(data[16 : 16 + length])
    at, parts = 16 + length, []
    blocks = -(-head["tokens"] // 8192)
    for size in (8 * blocks, 8 * (head["documents"] + 1), 16 * head["documents"], 2 * head["tokens"]):
        at = -(-at // 64) * 64
        parts.append(data[at : at + size])
        at += size
    checks, bounds, ids, tokens = parts
    assert at == len(data) and np.frombuffer(bounds, "<u8").tolist() == [0, 51, 9052, 9054]
    assert np.frombuffer(tokens, "<u2").tolist() == [*range(50), 7, *[3] * 9000, 7, 5, 7]
    assert ids[16:32].hex() == f"{1:032x}"
    expected = [xxhash.xxh3_64_intdigest(tokens[i : i + 16384]) for i in range(0, len(tokens), 16384)]
    assert np.frombuffer(checks, "<u8").tolist() == expected
    assert xxhash.xxh3_128_hexdigest(b"uint16" + checks + bounds + ids) == head["digest"] == entry.digest
    assert entry.largest == 49


def test_damage_is_named(tmp_path: Path) -> None:
    """A flipped bit of a token is met when its block is first read, and no other block is read for it."""
    entry = written(tmp_path, [[1, 2, 3]] * 9000, 100, size=10**6).shards[0]
    path = tmp_path / entry.name
    whole = bytearray(path.read_bytes())
    for place in (len(whole) - 2 * 36_000 + 2 * (2 * BLOCK - 1), len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        shard, token = Shard(path), (place - len(whole) + 2 * 36_000) // 2
        for start in range(0, token - BLOCK, BLOCK):
            shard.check(start, start + BLOCK)
        with pytest.raises(DamagedError, match=rf"{entry.name}: tokens {token // BLOCK * BLOCK:,} to .* their check"):
            shard.check(max(token - 100, 0), min(token + 20, 36_000))
        with pytest.raises(DamagedError, match="differ from their check"):
            shard.verify()
    for place in (200, 400):  # a check, a bound
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(DamagedError, match=rf"{entry.name}: content differs from its digest"):
            Shard(path)
    path.write_bytes(whole[:-8])
    with pytest.raises(DamagedError, match=r"holds \d+ bytes; expected"):
        Shard(path)
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match="no readable shard"):
        Shard(path)
    path.write_bytes(b"PTSHARD\x01" + whole[8:])
    with pytest.raises(DamagedError, match="a shard of version 1; expected version 2: make the tokens again"):
        Shard(path)
    path.write_bytes(b"NOSHARD\x01" + whole[8:])
    with pytest.raises(DamagedError, match="no shard; expected"):
        Shard(path)
    path.unlink()
    with pytest.raises(DamagedError, match=rf"{entry.name}: the shard is gone"):
        Shard(path)
    with pytest.raises(UserError, match=r"no catalogue\.json"):
        Catalogue.load(tmp_path / "other")
    (tmp_path / "catalogue.json").write_text('{"version": 1, "dtype": "uint16", "shards": []}')
    with pytest.raises(UserError, match=r"catalogue\.json: shards of version 1; expected version 2: make the tokens"):
        Catalogue.load(tmp_path)
    (tmp_path / "catalogue.json").write_text("{")
    with pytest.raises(DamagedError, match=r"catalogue\.json: cannot be read"):
        Catalogue.load(tmp_path)


def test_an_id_outside_the_vocabulary_is_never_written(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, vocab_size=100, shard_tokens=50, end=7)
    with pytest.raises(UserError, match=rf"{3:032x}: token id 100 is outside the vocabulary; expected 0 to 99"):
        writer.add(f"{3:032x}", np.array([5, 100]))
    with pytest.raises(UserError, match="token id -1 is outside"):
        writer.add(f"{3:032x}", np.array([-1]))


@pytest.mark.parametrize(("vocab", "name"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_the_narrowest_dtype_is_taken(vocab: int, name: str) -> None:
    assert dtype_for(vocab).name == name

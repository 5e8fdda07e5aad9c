"""Property and ordeal: what is written is read; a flipped bit, a cut file and a missing catalogue are named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import DamagedError, UserError
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard
from pretrain.shards.write import ShardWriter

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


def test_damage_is_named(tmp_path: Path) -> None:
    entry = written(tmp_path, [[1, 2, 3]] * 9, 100).shards[0]
    path = tmp_path / entry.name
    whole = bytearray(path.read_bytes())
    whole[-70] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DamagedError, match=rf"{entry.name}: content differs"):
        Shard(path).verify()
    path.write_bytes(whole[:-8])
    with pytest.raises(DamagedError, match=r"holds \d+ bytes; expected"):
        Shard(path)
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match="no readable shard"):
        Shard(path)
    path.write_bytes(b"PTSHARD\x63" + whole[8:])
    with pytest.raises(DamagedError, match="no shard of this version"):
        Shard(path)
    with pytest.raises(UserError, match=r"no catalogue\.json"):
        Catalogue.load(tmp_path / "other")

"""Twin: Megatron-LM's and nanoGPT's files, written here from their descriptions, come back token for token."""

import struct
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import DamagedError, UserError
from pretrain.shards.foreign import take_over
from pretrain.shards.read import Shard

MUTANTS = [
    (
        "src/pretrain/shards/foreign.py",
        "tokens[start : start + AT_ONCE] == end) + start + 1",
        "tokens[start : start + AT_ONCE] == end) + 1",
    ),
    ("src/pretrain/shards/foreign.py", "first[-1] != sequences", "first[-1] > sequences"),
    ("src/pretrain/shards/foreign.py", "if largest >= vocab_size:", "if largest > vocab_size:"),
    ("src/pretrain/shards/foreign.py", "ids[:, 1] = np.arange(len(ids))", "pass"),
    ("src/pretrain/shards/foreign.py", "{path.absolute().parent.name}/", ""),
]
DOCUMENTS = st.lists(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=5), min_size=1, max_size=3), min_size=1)


def write_megatron(path: Path, documents: list[list[list[int]]], code: int) -> None:
    """NAME.bin and NAME.idx of documents, each a list of sequences."""
    sequences = [np.array(one, {4: "<i4", 8: "<u2"}[code]) for document in documents for one in document]
    path.write_bytes(b"".join(one.tobytes() for one in sequences))
    bounds = np.cumsum([0, *(len(document) for document in documents)])
    with path.with_suffix(".idx").open("wb") as file:
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sequences), len(bounds)))
        file.write(np.array([len(one) for one in sequences], "<i4").tobytes())
        file.write(np.cumsum([0, *(one.nbytes for one in sequences[:-1])]).astype("<i8").tobytes())
        file.write(bounds.astype("<i8").tobytes())


def documents_of(path: Path) -> list[list[int]]:
    shard = Shard(path)
    shard.verify()
    assert len(set(shard.ids)) == len(shard.ids) == len(shard.bounds) - 1
    return [shard.tokens[a:b].tolist() for a, b in zip(shard.bounds[:-1], shard.bounds[1:], strict=True)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(DOCUMENTS, st.sampled_from([4, 8]))
def test_megatron_comes_back(tmp_path: Path, documents: list[list[list[int]]], code: int) -> None:
    write_megatron(tmp_path / "a.bin", documents, code)
    entry = take_over(tmp_path / "a.bin", "uint16", 100, None, tmp_path)
    assert documents_of(tmp_path / entry.name) == [[*chain(*document)] for document in documents]
    assert (tmp_path / entry.name).stat().st_size < 1000 + 24 * len(documents), "tokens stay where they are"


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("piece", [4, 2**26])
def test_flat_files_come_back(tmp_path: Path, dtype: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.shards.foreign.AT_ONCE", piece)
    tokens = [5, 6, 0, 7, 0, 0, 8, 9]
    np.array(tokens, dtype).tofile(tmp_path / "train.bin")
    entry = take_over(tmp_path / "train.bin", dtype, 100, 0, tmp_path)
    assert documents_of(tmp_path / entry.name) == [[5, 6, 0], [7, 0], [0], [8, 9]]
    assert (entry.tokens, entry.documents, entry.largest) == (8, 4, 9)


def test_files_of_one_name_hold_documents_of_ids_of_their_own(tmp_path: Path) -> None:
    found = []
    for name in ("web", "books"):
        (tmp_path / name).mkdir()
        np.array([5, 0, 7, 0], "<u2").tofile(tmp_path / name / "train.bin")
        entry = take_over(tmp_path / name / "train.bin", "uint16", 100, 0, tmp_path)
        found += Shard(tmp_path / entry.name).ids
    assert len(set(found)) == 4


def test_what_cannot_be_taken_over_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_megatron(path, [[[1, 2]], [[3, 99]]], 8)
    with pytest.raises(UserError, match=r"a\.bin: token id 99 is outside the vocabulary; expected 0 to 98"):
        take_over(path, "uint16", 99, None, tmp_path)
    index = path.with_suffix(".idx")
    whole = index.read_bytes()
    index.write_bytes(whole[:17] + b"\x05" + whole[18:])
    with pytest.raises(UserError, match=r"a\.idx: tokens of dtype code 5; expected int32 \(4\) or uint16 \(8\)"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.write_bytes(whole[:9] + b"\x02" + whole[10:])
    with pytest.raises(UserError, match=r"a\.idx: an index of version 2; expected version 1"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.write_bytes(whole[:34] + b"\x03" + whole[35:])
    with pytest.raises(UserError, match="do not lie one after the other"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.write_bytes(whole[:-8] + b"\x01" + whole[-7:])
    with pytest.raises(UserError, match="its documents do not hold all sequences"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.write_bytes(whole[:-9])
    with pytest.raises(DamagedError, match=r"a\.idx: holds \d+ bytes"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.write_bytes(b"something else, but long enough to be one")
    with pytest.raises(DamagedError, match="no index of Megatron-LM"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.write_bytes(whole)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DamagedError, match=r"a\.bin: holds 3 tokens; expected 4"):
        take_over(path, "uint16", 100, None, tmp_path)
    index.unlink()
    with pytest.raises(DamagedError, match="holds 6 bytes; expected a whole number of 4-byte tokens"):
        take_over(path, "uint32", 100, 0, tmp_path)
    with pytest.raises(UserError, match="no id ends a document"):
        take_over(path, "uint16", 100, None, tmp_path)
    entry = take_over(path, "uint16", 100, 0, tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DamagedError, match=r"a\.bin: tokens 0 to 8,192 differ from their check"):
        Shard(tmp_path / entry.name).verify()
    path.unlink()
    with pytest.raises(DamagedError, match=r"a\.bin: the shard is gone"):
        Shard(tmp_path / entry.name)

"""Token files of other trainers, taken over where they lie: their bounds, ids and checks are written beside.

Megatron-LM's indexed dataset (megatron/core/datasets/indexed_dataset.py): NAME.idx holds b"MMIDIDX\\0\\0", version 1
(uint64), a code for the dtype (uint8), the numbers of sequences and of document bounds (uint64), the sequences' lengths
(int32) and byte offsets (int64), and the sequences with which documents begin (int64); NAME.bin holds the tokens.

A flat file (nanoGPT's train.bin) holds tokens and nothing else: documents end with the document-end id.
"""

from pathlib import Path

import numpy as np
import xxhash

from pretrain.base.errors import DamagedError, UserError
from pretrain.shards.catalogue import Entry
from pretrain.shards.write import write_shard

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
CODES = {4: "<u4", 8: "<u2"}  # int32, whose ids are never negative, and uint16
AT_ONCE = 2**26  # tokens looked through at a time


def take_over(path: Path, dtype: str, vocab_size: int, end: int | None, folder: Path) -> Entry:
    """Writes a shard that leaves its tokens in a .bin file, Megatron's where an .idx lies beside, else flat.

    `dtype` is a flat file's. Raises UserError for ids outside the vocabulary, DamagedError.
    """
    index = path.with_suffix(".idx")
    if index.exists():
        kind, bounds = read_index(index)
        tokens = _tokens(path, kind)
        if len(tokens) < bounds[-1]:
            raise DamagedError(f"holds {len(tokens):,} tokens", where=str(path), expected=f"{bounds[-1]:,}")
        tokens = tokens[: int(bounds[-1])]
    else:
        tokens = _tokens(path, np.dtype(dtype).newbyteorder("<").str)
        bounds = bounds_of(tokens, end, str(path))
    largest = int(tokens.max(initial=0))
    if largest >= vocab_size:
        what = f"token id {largest} is outside the vocabulary"
        expected = f"0 to {vocab_size - 1}; is it another dtype, or another tokenizer's?"
        raise UserError(what, where=str(path), expected=expected)
    ids = np.zeros((len(bounds) - 1, 2), ">u8")
    ids[:, 0] = xxhash.xxh3_64_intdigest(f"{path.absolute().parent.name}/{path.name}".encode())
    ids[:, 1] = np.arange(len(ids))
    return write_shard(folder, tokens, bounds, ids.view(np.uint8).reshape(-1, 16), (str(path), 0))


def _tokens(path: Path, dtype: str) -> np.ndarray:
    size = path.stat().st_size
    if not size or size % np.dtype(dtype).itemsize:
        expected = f"a whole number of {np.dtype(dtype).itemsize}-byte tokens"
        raise DamagedError(f"holds {size:,} bytes", where=str(path), expected=expected)
    return np.asarray(np.memmap(path, dtype, "r"))


def read_index(path: Path) -> tuple[str, np.ndarray]:
    """dtype, and uint64 [documents + 1]: where each document starts. Raises DamagedError, UserError."""
    data = path.read_bytes()
    if data[:9] != MAGIC or len(data) < 34:
        raise DamagedError("no index of Megatron-LM", where=str(path), expected=repr(MAGIC))
    if (found := int.from_bytes(data[9:17], "little")) != VERSION:
        raise UserError(f"an index of version {found}", where=str(path), expected=f"version {VERSION}")
    code, (sequences, documents) = data[17], np.frombuffer(data, "<u8", 2, 18).tolist()
    if code not in CODES:
        raise UserError(f"tokens of dtype code {code}", where=str(path), expected="int32 (4) or uint16 (8)")
    lengths_end = 34 + 4 * sequences
    if len(data) < lengths_end + 8 * (sequences + documents):
        raise DamagedError(f"holds {len(data):,} bytes", where=str(path), expected="as many as its counts say")
    lengths = np.frombuffer(data, "<i4", sequences, 34).astype(np.uint64)
    starts = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths)])
    pointers = np.frombuffer(data, "<i8", sequences, lengths_end).astype(np.uint64)
    if not np.array_equal(pointers, starts[:-1] * np.uint64(np.dtype(CODES[code]).itemsize)):
        raise UserError("its sequences do not lie one after the other", where=str(path), expected="an index as built")
    first = np.frombuffer(data, "<i8", documents, lengths_end + 8 * sequences)
    if not documents or first[0] != 0 or first[-1] != sequences or (np.diff(first) < 0).any():
        raise UserError("its documents do not hold all sequences", where=str(path), expected="an index as built")
    return CODES[code], starts[first].astype("<u8")


def bounds_of(tokens: np.ndarray, end: int | None, where: str) -> np.ndarray:
    """uint64 [documents + 1]: documents of a flat file, each closed by `end`, the last perhaps not."""
    if end is None:
        raise UserError("no id ends a document", where=where, expected="a tokenizer with a document-end token")
    ends = [
        np.flatnonzero(tokens[start : start + AT_ONCE] == end) + start + 1 for start in range(0, len(tokens), AT_ONCE)
    ]
    return np.unique(np.concatenate([[0], *ends, [len(tokens)]])).astype("<u8")

"""The layout of a shard file, little-endian, each part from a multiple of 64 bytes on:

| part | bytes | is |
|---|---|---|
| magic | 8 | b"PTSHARD" and SHARD_VERSION |
| header length | 8 | uint64: bytes of the header |
| header | | JSON: `dtype` ("uint16", "uint32"), `tokens`, `documents`, `digest`; `file`, `offset`: tokens elsewhere |
| checks | 8 a block | uint64: xxh3-64 of each BLOCK of tokens |
| bounds | 8 a document, and 8 | uint64: where each document starts, and at last the number of tokens |
| ids | 16 a document | the documents' ids |
| tokens | 2 or 4 a token | ids of the documents one after the other, each closed by the document-end id |

`digest` is the xxh3-128 of dtype, checks, bounds and ids, and so names the tokens too: a shard is opened by reading all
but its tokens, and those are held against their checks a block at a time, when they are first read.
"""

import json

import numpy as np
import xxhash

SHARD_VERSION = 2
MAGIC = b"PTSHARD" + bytes([SHARD_VERSION])
ALIGNMENT = 64  # bytes: a cache line, and more than any dtype here
BLOCK = 2**13  # tokens under one check: what a row at a random place has to read besides itself
CATALOGUE = "catalogue.json"


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrowest of 2 and 4 bytes that holds every id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def aligned(offset: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def header(dtype: np.dtype, tokens: int, documents: int, digest: str, elsewhere: tuple[str, int] | None) -> bytes:
    """Magic, length and JSON, padded; `elsewhere`: the file that holds the tokens, and from which byte on."""
    table: dict[str, object] = {"dtype": dtype.name, "tokens": tokens, "documents": documents, "digest": digest}
    if elsewhere is not None:
        table |= {"file": elsewhere[0], "offset": elsewhere[1]}
    text = json.dumps(table).encode()
    whole = MAGIC + len(text).to_bytes(8, "little") + text
    return whole.ljust(aligned(len(whole)), b"\0")


def checks_of(tokens: np.ndarray) -> np.ndarray:
    """uint64 [blocks]: the check of each block of tokens."""
    starts = range(0, len(tokens), BLOCK)
    return np.array([xxhash.xxh3_64_intdigest(tokens[start : start + BLOCK].data) for start in starts], "<u8")


def digest_of_parts(dtype: np.dtype, checks: np.ndarray, bounds: np.ndarray, ids: np.ndarray) -> str:
    """Names a shard by its content, 32 hexadecimal digits."""
    state = xxhash.xxh3_128(dtype.name.encode())
    for part in (checks, bounds, ids):
        state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()

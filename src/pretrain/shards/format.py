"""The layout of a shard file, little-endian, each part from a multiple of 64 bytes on:

| part | bytes | is |
|---|---|---|
| magic | 8 | b"PTSHARD" and SHARD_VERSION |
| header length | 8 | uint64: bytes of the header |
| header | | JSON: `dtype` ("uint16" or "uint32"), `tokens`, `documents`, `digest` (xxh3-128 of all parts below) |
| tokens | 2 or 4 a token | ids of the documents one after the other, each closed by the document-end id |
| bounds | 8 a document, and 8 | uint64: where each document starts, and at last the number of tokens |
| ids | 16 a document | the documents' ids |
"""

import json

import numpy as np

SHARD_VERSION = 1
MAGIC = b"PTSHARD" + bytes([SHARD_VERSION])
ALIGNMENT = 64  # bytes: a cache line, and more than any dtype here
CATALOGUE = "catalogue.json"


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrowest of 2 and 4 bytes that holds every id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def aligned(offset: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def header(dtype: np.dtype, tokens: int, documents: int, digest: str) -> bytes:
    """Magic, length and JSON, padded to where the tokens start."""
    text = json.dumps({"dtype": dtype.name, "tokens": tokens, "documents": documents, "digest": digest}).encode()
    whole = MAGIC + len(text).to_bytes(8, "little") + text
    return whole.ljust(aligned(len(whole)), b"\0")

"""Writes documents' tokens as shards, a bounded number of tokens in memory at a time."""

import json
from pathlib import Path

import numpy as np
import xxhash

from pretrain.base.files import write
from pretrain.shards.format import CATALOGUE, SHARD_VERSION, aligned, dtype_for, header


class ShardWriter:
    """Fills a folder with shards of about `shard_tokens` tokens; documents are never split over shards.

    Tokens are buffered until a shard is full: memory is bounded by one shard and one document.
    """

    def __init__(self, folder: Path, *, vocab_size: int, shard_tokens: int, end: int | None) -> None:
        self.folder, self.shard_tokens = folder, shard_tokens
        self.dtype = dtype_for(vocab_size)
        self._end = np.array([] if end is None else [end], self.dtype)
        self._entries: list[dict[str, object]] = []
        self._clear()

    def add(self, document_id: str, tokens: np.ndarray) -> None:
        """Appends a document (32 hexadecimal digits, int [tokens]) and the document-end id."""
        self._tokens += [tokens.astype(self.dtype), self._end]
        self._bounds.append(self._bounds[-1] + len(tokens) + len(self._end))
        self._ids.append(bytes.fromhex(document_id))
        if self._bounds[-1] >= self.shard_tokens:
            self._flush()

    def close(self) -> None:
        """Writes the last shard and the catalogue of them all."""
        if self._ids:
            self._flush()
        catalogue = {"version": SHARD_VERSION, "dtype": self.dtype.name, "shards": self._entries}
        write(self.folder / CATALOGUE, json.dumps(catalogue, indent=1))

    def _clear(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._bounds, self._ids = [0], list[bytes]()

    def _flush(self) -> None:
        parts = [
            np.concatenate(self._tokens).tobytes(),
            np.array(self._bounds, "<u8").tobytes(),
            b"".join(self._ids),
        ]
        body = b"".join(part.ljust(aligned(len(part)), b"\0") for part in parts)
        name = xxhash.xxh3_128_hexdigest(body)
        tokens, documents = self._bounds[-1], len(self._ids)
        write(self.folder / f"{name}.shard", header(self.dtype, tokens, documents, name) + body)
        self._entries.append({"name": f"{name}.shard", "tokens": tokens, "documents": documents, "digest": name})
        self._clear()

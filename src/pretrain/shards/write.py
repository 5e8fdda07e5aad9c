"""Writes documents' tokens as shards, a bounded number of tokens in memory at a time."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.files import write
from pretrain.shards.catalogue import Catalogue, Entry
from pretrain.shards.format import CATALOGUE, SHARD_VERSION, aligned, checks_of, digest_of_parts, dtype_for, header


class ShardWriter:
    """Fills a folder with shards of about `shard_tokens` tokens; documents are never split over shards.

    Tokens are buffered until a shard is full: memory is bounded by one shard and one document. `tokenizer` is the
    digest of the one that made them.
    """

    def __init__(
        self, folder: Path, *, vocab_size: int, shard_tokens: int, end: int | None, tokenizer: str = ""
    ) -> None:
        self.folder, self.shard_tokens = folder, shard_tokens
        self.vocab_size, self.end, self.tokenizer = vocab_size, end, tokenizer
        self.dtype = dtype_for(vocab_size)
        self._end = np.array([] if end is None else [end], self.dtype)
        self._entries: list[Entry] = []
        self._clear()

    def add(self, document_id: str, tokens: np.ndarray) -> None:
        """Appends a document (32 hexadecimal digits, int [tokens]) and the document-end id. Raises UserError."""
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            wrong = int(tokens.max()) if int(tokens.max()) >= self.vocab_size else int(tokens.min())
            expected = f"0 to {self.vocab_size - 1}"
            raise UserError(f"token id {wrong} is outside the vocabulary", where=document_id, expected=expected)
        self._tokens += [tokens.astype(self.dtype), self._end]
        self._bounds.append(self._bounds[-1] + len(tokens) + len(self._end))
        self._ids.append(bytes.fromhex(document_id))
        if self._bounds[-1] >= self.shard_tokens:
            self._flush()

    def close(self) -> None:
        """Writes the last shard and the catalogue of them all."""
        if self._ids:
            self._flush()
        shards = tuple(self._entries)
        write_catalogue(Catalogue(self.folder, self.dtype.name, self.vocab_size, self.tokenizer, self.end, shards))

    def _clear(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._bounds, self._ids = [0], list[bytes]()

    def _flush(self) -> None:
        ids = np.frombuffer(b"".join(self._ids), np.uint8).reshape(-1, 16)
        tokens = np.concatenate(self._tokens)
        self._entries.append(write_shard(self.folder, tokens, np.array(self._bounds, "<u8"), ids))
        self._clear()


def write_shard(
    folder: Path, tokens: np.ndarray, bounds: np.ndarray, ids: np.ndarray, elsewhere: tuple[str, int] | None = None
) -> Entry:
    """One shard of tokens [tokens], bounds uint64 [documents + 1] and ids uint8 [documents, 16], named by its digest.

    With `elsewhere` (a file, and the byte from which it holds these tokens) they are left there.
    """
    checks = checks_of(tokens)
    digest = digest_of_parts(tokens.dtype, checks, bounds, ids)
    parts = [part.tobytes() for part in (checks, bounds, ids)]
    head = header(tokens.dtype, len(tokens), len(ids), digest, elsewhere)
    body = b"".join([head, *(part.ljust(aligned(len(part)), b"\0") for part in parts)])
    write(folder / f"{digest}.shard", body if elsewhere else body + tokens.tobytes())
    return Entry(f"{digest}.shard", len(tokens), len(ids), digest, int(tokens.max(initial=0)))


def write_catalogue(catalogue: Catalogue) -> None:
    """catalogue.json, which makes a folder of shards whole."""
    table: dict[str, object] = {"version": SHARD_VERSION}
    for name in ("dtype", "vocab_size", "tokenizer", "end", "at"):
        table[name] = getattr(catalogue, name)
    table["shards"] = [asdict(entry) for entry in catalogue.shards]
    write(catalogue.folder / CATALOGUE, json.dumps(table, indent=1))


def joined(folder: Path, parts: Sequence[Catalogue]) -> Catalogue:
    """The catalogue of a folder that holds the shards of several, in their order; they must be of one tokenizer."""
    first = parts[0]
    shards = tuple(entry for part in parts for entry in part.shards)
    return Catalogue(folder, first.dtype, first.vocab_size, first.tokenizer, first.end, shards)

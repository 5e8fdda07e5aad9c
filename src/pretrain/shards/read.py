"""Opens a shard without reading it: its parts are views of a memory map."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

from pretrain.base.errors import DamagedError
from pretrain.shards.format import MAGIC, aligned


class Shard:
    """Tokens [tokens], bounds [documents + 1] and document ids of a shard file. Raises DamagedError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._map = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise DamagedError(f"no readable shard: {error}", where=str(path)) from None
        if bytes(self._map[: len(MAGIC)]) != MAGIC:
            raise DamagedError("no shard of this version", where=str(path), expected=repr(MAGIC))
        length = int.from_bytes(self._map[8:16].tobytes(), "little")
        try:
            head = json.loads(self._map[16 : 16 + length].tobytes())
            self.dtype = np.dtype(head["dtype"]).newbyteorder("<")
            tokens, documents, self.digest = int(head["tokens"]), int(head["documents"]), str(head["digest"])
        except (ValueError, KeyError, TypeError):
            raise DamagedError("its header cannot be read", where=str(path)) from None
        self._body = aligned(16 + length)
        bounds = self._body + aligned(tokens * self.dtype.itemsize)
        ids = bounds + aligned(8 * (documents + 1))
        end = ids + aligned(16 * documents)
        if end != len(self._map):
            raise DamagedError(f"holds {len(self._map)} bytes", where=str(path), expected=str(end))
        self.tokens = self._map[self._body : self._body + tokens * self.dtype.itemsize].view(self.dtype)
        self.bounds = self._map[bounds : bounds + 8 * (documents + 1)].view("<u8")
        self._ids = self._map[ids : ids + 16 * documents].reshape(documents, 16)

    @cached_property
    def ids(self) -> list[str]:
        """The documents' ids, 32 hexadecimal digits each."""
        return [row.tobytes().hex() for row in self._ids]

    def find(self, identity: str) -> list[int]:
        """Numbers of the documents with an id."""
        wanted = np.frombuffer(bytes.fromhex(identity), np.uint8)
        return np.flatnonzero((self._ids == wanted).all(1)).tolist()

    def verify(self) -> None:
        """Reads every byte against the digest. Raises DamagedError."""
        if xxhash.xxh3_128_hexdigest(self._map[self._body :].tobytes()) != self.digest:
            raise DamagedError("content differs from its digest", where=str(self.path), expected=self.digest)

"""Opens a shard without reading its tokens: its parts are views of a memory map."""

import json
import mmap
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

from pretrain.base.errors import DamagedError
from pretrain.shards.format import BLOCK, MAGIC, SHARD_VERSION, aligned, digest_of_parts


class Shard:
    """Tokens [tokens], bounds [documents + 1] and document ids of a shard file.

    All but the tokens is held against the digest here; tokens are when `check` is first asked for them. Raises
    DamagedError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        whole = _mapped(path)
        if bytes(whole[:7]) == MAGIC[:7] and whole[7] != SHARD_VERSION:
            what, expected = f"a shard of version {whole[7]}", f"version {SHARD_VERSION}: make the tokens again"
            raise DamagedError(what, where=str(path), expected=expected)
        if bytes(whole[: len(MAGIC)]) != MAGIC:
            raise DamagedError("no shard", where=str(path), expected=repr(MAGIC))
        length = int.from_bytes(whole[8:16].tobytes(), "little")
        try:
            head = json.loads(whole[16 : 16 + length].tobytes())
            self.dtype = np.dtype(head["dtype"]).newbyteorder("<")
            tokens, documents, self.digest = int(head["tokens"]), int(head["documents"]), str(head["digest"])
        except (ValueError, KeyError, TypeError):
            raise DamagedError("its header cannot be read", where=str(path)) from None
        checks = aligned(16 + length)
        bounds = checks + aligned(8 * -(-tokens // BLOCK))
        ids = bounds + aligned(8 * (documents + 1))
        body = ids + aligned(16 * documents)
        size = tokens * self.dtype.itemsize
        end = body if "file" in head else body + size
        if end != len(whole):
            raise DamagedError(f"holds {len(whole)} bytes", where=str(path), expected=str(end))
        self.checks = whole[checks : checks + 8 * -(-tokens // BLOCK)].view("<u8")
        self.bounds = whole[bounds : bounds + 8 * (documents + 1)].view("<i8")
        self._ids = whole[ids : ids + 16 * documents].reshape(documents, 16)
        if digest_of_parts(self.dtype, self.checks, self.bounds, self._ids) != self.digest:
            raise DamagedError("content differs from its digest", where=str(path), expected=self.digest)
        if "file" in head:
            self.path, body = Path(head["file"]), int(head["offset"])
            whole = _mapped(self.path)
            if len(whole) < body + size:
                raise DamagedError(f"holds {len(whole)} bytes", where=str(self.path), expected=str(body + size))
        self.tokens = np.frombuffer(whole, self.dtype, tokens, body)
        self._checked = bytearray(len(self.checks))

    @cached_property
    def ids(self) -> list[str]:
        """The documents' ids, 32 hexadecimal digits each."""
        return [row.tobytes().hex() for row in self._ids]

    def id(self, document: int) -> str:
        """The id of a document by its number."""
        return self._ids[document].tobytes().hex()

    def find(self, identity: str) -> list[int]:
        """Numbers of the documents with an id."""
        wanted = np.frombuffer(bytes.fromhex(identity), np.uint8)
        return np.flatnonzero((self._ids == wanted).all(1)).tolist()

    def check(self, start: int, stop: int) -> None:
        """Holds the blocks of tokens `start` to `stop` against their checks, each once. Raises DamagedError."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if not self._checked[block]:
                tokens = self.tokens[block * BLOCK : (block + 1) * BLOCK]
                if xxhash.xxh3_64_intdigest(tokens.data) != self.checks[block]:
                    what = f"tokens {block * BLOCK:,} to {(block + 1) * BLOCK:,} differ from their check"
                    raise DamagedError(what, where=str(self.path), expected=f"{self.checks[block]:016x}")
                self._checked[block] = 1

    def verify(self) -> None:
        """Reads every token against its check. Raises DamagedError."""
        self.check(0, len(self.tokens))


def _mapped(path: Path) -> np.ndarray:
    """The bytes of a file, uint8, read when they are touched. Raises DamagedError."""
    try:
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise DamagedError("the shard is gone", where=str(path), expected="a file of its catalogue") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"no readable shard: {error}", where=str(path)) from None

"""Rows of a source: what stands in them, and of which documents.

A row is a window of the running text, with the token after it as its last target; or, packed by best fit, whole
documents and padding. A place counts (its weight is 1) where the token after it goes on with its document or begins
one; where there is padding, or a piece out of the middle of another document, it does not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from pretrain.base.errors import DamagedError, UserError
from pretrain.order.best_fit import PIECES, table_name
from pretrain.shards.catalogue import Catalogue, Entry
from pretrain.shards.read import Shard
from pretrain.shards.shelf import Cache, Shelf


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `stop` of a document, by its id; the document-end token is its last."""

    id: str
    start: int
    stop: int


@dataclass(frozen=True)
class Windows:
    """`tokens`, and `documents` (which of its row's each belongs to) [rows, row + 1]; `weights` [rows, row]."""

    tokens: np.ndarray
    documents: np.ndarray
    weights: np.ndarray

    @classmethod
    def empty(cls, rows: int, row: int, *, padded: bool) -> "Windows":
        """Room for rows; every place counts, by a read-only 1 for all batches where no row is `padded`."""
        shape = (rows, row + 1)
        weights = np.ones((rows, row), np.float32) if padded else all_count(rows, row)
        return cls(np.empty(shape, np.int64), np.empty(shape, np.int32), weights)


@lru_cache(maxsize=8)
def all_count(rows: int, row: int) -> np.ndarray:
    """Weights of 1, float32 [rows, row]."""
    return np.broadcast_to(np.float32(1), (rows, row))


class Rows:
    """The rows of `row` tokens in a folder of shards, by `packing` "contiguous", "padding_free" or "best_fit".

    The first two are the same windows; what does not fill one at a shard's end is dropped. Best fit reads the tables
    beside the catalogue. Shards of an object store come through `cache`. Raises UserError where there is no row.
    """

    def __init__(self, folder: Path, row: int, packing: str = "contiguous", cache: Cache | None = None) -> None:
        self.row, self.packing, self.catalogue = row, packing, Catalogue.load(folder)
        self._shelf = Shelf(self.catalogue, cache)
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if packing == "best_fit":
            counts = [int(_table(self._table_path(i))["row"][-1]) + 1 for i in range(len(self.catalogue.shards))]
        else:
            counts = [max(entry.tokens - 1, 0) // row for entry in self.catalogue.shards]
        self._firsts = np.cumsum([0, *counts])
        if not self._firsts[-1]:
            what = f"{self.catalogue.tokens} tokens fill no row of {row}"
            raise UserError(what, where=str(folder), expected="more text, or a shorter tokens.row")

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def dropped_tokens(self) -> int:
        """Tokens that stand in no row."""
        return 0 if self.packing == "best_fit" else self.catalogue.tokens - len(self) * self.row

    @property
    def padding(self) -> float:
        """The share of all places that hold no token."""
        return 1 - self.catalogue.tokens / (len(self) * self.row) if self.packing == "best_fit" else 0.0

    @property
    def remote(self) -> bool:
        """Whether its shards lie in an object store."""
        return "://" in self.catalogue.at

    def fill(self, numbers: np.ndarray, places: np.ndarray, into: Windows) -> None:
        """Writes rows into `into`, at its rows `places`. Raises DamagedError where a shard is gone or not itself."""
        for one, here in groups(self._firsts.searchsorted(numbers, "right") - 1):
            shard, local = self._shelf.shard(one), numbers[here] - self._firsts[one]
            if self.packing == "best_fit":
                for number, place in zip(local.tolist(), places[here].tolist(), strict=True):
                    self._fill_packed(shard, self._pieces(one, number), place, into)
            else:
                self._fill_windows(shard, local * self.row, places[here], into)

    def entry(self, number: int) -> Entry:
        """What the catalogue says of the shard that holds a row."""
        return self.catalogue.shards[self._shard_of(number)]

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [row + 1] of a row, and for each which document of the row it belongs to, int32 [row + 1]."""
        into = Windows.empty(1, self.row, padded=True)
        self.fill(np.array([number]), np.zeros(1, np.int64), into)
        return into.tokens[0], into.documents[0]

    def documents(self, number: int) -> list[Span]:
        """The documents that a row holds, in order; a last target that belongs to the next row is not among them."""
        which = self._shard_of(number)
        shard, local = self._shelf.shard(which), number - int(self._firsts[which])
        if self.packing == "best_fit":
            return [Span(shard.id(document), start, stop) for document, start, stop in self._pieces(which, local)]
        start, stop = local * self.row, (local + 1) * self.row
        first = int(np.searchsorted(shard.bounds, start, "right")) - 1
        last = int(np.searchsorted(shard.bounds, stop, "left"))
        return [
            Span(shard.id(first + i), max(start - low, 0), min(stop, high) - low)
            for i, (low, high) in enumerate(pairwise(shard.bounds[first : last + 1].tolist()))
            if high > low
        ]

    def find(self, document_id: str) -> list[int]:
        """The rows that hold tokens of a document, in their order."""
        found: set[int] = set()
        for which, first in enumerate(self._firsts[:-1].tolist()):
            shard = self._shelf.shard(which)
            for document in shard.find(document_id):
                if self.packing == "best_fit":
                    pieces = _table(self._table_path(which))
                    found |= {first + row for row in pieces["row"][pieces["document"] == document].tolist()}
                else:
                    start, stop = shard.bounds[document : document + 2].tolist()
                    rows = range(first + start // self.row, first + -(-stop // self.row))
                    found |= {row for row in rows if row < self._firsts[which + 1]}
        return sorted(found)

    def ahead(self, numbers: Iterable[int]) -> None:
        """Begins to fetch the shards of rows."""
        self._shelf.ahead(sorted({self._shard_of(number) for number in numbers}))

    def _shard_of(self, number: int) -> int:
        return int(np.searchsorted(self._firsts, number, "right")) - 1

    def _table_path(self, which: int) -> Path:
        name = Path(self.catalogue.shards[which].name).with_suffix(".npy")
        return self.catalogue.folder / table_name(self.row) / name

    def _pieces(self, which: int, number: int) -> list[tuple[int, int, int]]:
        """(document, start, stop) of what stands in a row of a shard."""
        if which not in self._tables:
            pieces = _table(self._table_path(which))
            rows = int(pieces["row"][-1]) + 1
            self._tables[which] = pieces, np.searchsorted(np.ascontiguousarray(pieces["row"]), np.arange(rows + 1))
        pieces, firsts = self._tables[which]
        return [(d, start, stop) for _, d, start, stop in pieces[firsts[number] : firsts[number + 1]].tolist()]

    def _fill_windows(self, shard: Shard, starts: np.ndarray, places: np.ndarray, into: Windows) -> None:
        """All rows of a shard at once: few calls, and one cast."""
        length, step = self.row + 1, shard.tokens.itemsize
        for start in starts.tolist():
            shard.check(start, start + length)
        every = np.ndarray((len(shard.tokens) - self.row, length), shard.dtype, shard.tokens.data, 0, (step, step))
        into.tokens[places] = every[starts]
        first, last = shard.bounds.searchsorted(starts + np.array([[1], [length]]))  # bounds inside each row
        pieces = last - first + 1
        after = pieces.cumsum()
        row = np.arange(len(starts)).repeat(pieces)  # of each piece
        nth = np.arange(len(row)) - (after - pieces)[row]
        row_ends = np.arange(length, length * len(starts) + 1, length)
        sizes = shard.bounds[first[row] + nth] + (row_ends - length - starts)[row]  # where it ends, in all rows
        sizes[after - 1] = row_ends
        sizes[1:] -= sizes[:-1].copy()
        into.documents[places] = nth.astype(np.int32).repeat(sizes).reshape(-1, length)

    def _fill_packed(self, shard: Shard, pieces: list[tuple[int, int, int]], place: int, into: Windows) -> None:
        tokens, documents, weights = into.tokens[place], into.documents[place], into.weights[place]
        at = 0
        for n, (document, start, stop) in enumerate(pieces):
            low = int(shard.bounds[document])
            more = low + stop < shard.bounds[document + 1]  # then it fills the row, and its next token is a target
            after = at + stop - start
            if at and start:
                weights[at - 1] = 0
            shard.check(low + start, low + stop + more)
            tokens[at : after + more] = shard.tokens[low + start : low + stop + more]
            documents[at : after + more] = n
            at = after
        if not more:
            tokens[at:] = self.catalogue.end or 0
            documents[at:] = len(pieces)
            weights[at - 1 :] = 0


def groups(of: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice]]:
    """(value, where it stands) of each value of an array [n]; all of it, if there is one alone."""
    values = set(of.tolist())
    for value in sorted(values):
        yield value, (of == value).nonzero()[0] if len(values) > 1 else slice(None)


def _table(path: Path) -> np.ndarray:
    """PIECES of a shard, mapped. Raises UserError where they are not made, DamagedError where they cannot be read."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        expected = "`pretrain run … --to tokens`, which makes it"
        raise UserError("no table of best-fit rows", where=str(path), expected=expected) from None
    except (OSError, ValueError):
        raise DamagedError("cannot be read", where=str(path), expected="a table of best-fit rows") from None
    if table.dtype != PIECES or not len(table):
        raise DamagedError("no table of best-fit rows", where=str(path), expected=str(PIECES.names))
    return np.asarray(table)

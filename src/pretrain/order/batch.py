"""A batch: the samples at consecutive positions, in numpy, until training moves it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from pretrain.base.errors import DamagedError
from pretrain.events.kinds import Lost
from pretrain.order.order import Order
from pretrain.order.pack import Rows, Windows, groups

STRETCH = 4096  # positions whose places are computed together
IGNORE = -100  # a target that is not predicted
AGAIN = (
    "the same again, by `pretrain run RECIPE` after this file and what it links to in store/steps/tokens are removed"
)
SKIP = 'or train.guard.lost_shard = "skip", to learn without it'


@dataclass(frozen=True)
class Vocabulary:
    """What objectives need to know of a tokenizer; `order.vocabulary.vocabulary` makes one.

    `specials` are all ids that stand for no text. `joins`, bool [2, size], says where words lie: a token goes on the
    word of the one before it where joins[0] holds for it and joins[1] for the other.
    """

    size: int
    end: int | None = None
    mask: int | None = None
    specials: frozenset[int] = frozenset()
    fim: tuple[int, int, int] | None = None  # what announces prefix, suffix and middle
    joins: np.ndarray | None = field(default=None, compare=False, repr=False)

    @cached_property
    def _special(self) -> np.ndarray:
        table = np.zeros(self.size, bool)
        table[sorted(self.specials)] = True
        return table

    def is_special(self, tokens: np.ndarray) -> np.ndarray:
        """Whether each of some ids stands for no text: bool, shaped like them."""
        return self._special[tokens]

    @cached_property
    def _ordinary(self) -> np.ndarray:
        return np.flatnonzero(~self._special)

    def ordinary(self, u: np.ndarray) -> np.ndarray:
        """An id that stands for text for each u in [0, 1), all alike: int64, shaped like u."""
        return self._ordinary[(u.astype(np.float64) * len(self._ordinary)).astype(np.int64)]


@dataclass(frozen=True)
class Batch:
    """`tokens`, `targets`, `weights` and `documents` [batch, seq]; `rows` [batch] names each sample in the run.

    `sources` says where each sample comes from; arrays in `extra` are an objective's own, [batch, …].
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    documents: np.ndarray
    rows: np.ndarray
    positions: np.ndarray  # [batch, seq, axes]
    seed: int = 0
    sources: tuple[str, ...] = ()
    media: tuple = ()
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    columns: np.ndarray | None = None  # [seq]: which places of the samples these are, where not all

    def at(self, columns: np.ndarray) -> "Batch":
        """Some places of every sample; `documents` stay whole."""
        cut = {name: getattr(self, name)[:, columns] for name in ("tokens", "targets", "weights", "positions")}
        extra = {name: array[..., columns] for name, array in self.extra.items()}
        return replace(self, **cut, extra=extra, columns=columns)

    def part(self, start: int, stop: int) -> "Batch":
        """Samples `start` to `stop`: a micro-batch."""
        names = ("tokens", "targets", "weights", "documents", "rows", "positions", "sources")
        extra = {name: array[start:stop] for name, array in self.extra.items()}
        return replace(self, **{name: getattr(self, name)[start:stop] for name in names}, extra=extra)

    @property
    def own_weights(self) -> np.ndarray:
        """The weight of every token itself, where `weights` are the targets': a document's first has its second's."""
        weights = np.where(self.targets == IGNORE, 0, self.weights)
        own, same = weights.copy(), self.documents[:, 1:] == self.documents[:, :-1]
        own[:, 1:][same] = weights[:, :-1][same]
        return own


@dataclass(frozen=True)
class Data:
    """What a run reads: an order over the rows of its sources, in samples of `sequence` tokens.

    With `apart`, positions start anew where a document does. `lengths` are shorter sequences at the start of the run:
    (from which position on, tokens). Where a shard is lost, and `lost` is there to be told so, its rows count nothing.
    """

    order: Order
    rows: Mapping[str, Rows]
    sequence: int
    apart: bool = False
    lengths: tuple[tuple[int, int], ...] = ()
    lost: Callable[[Lost], None] | None = None

    @property
    def row(self) -> int:
        """Tokens in a row, the unit that positions count."""
        return next(iter(self.rows.values())).row

    @cached_property
    def _padded(self) -> bool:
        return self.lost is not None or any(one.packing == "best_fit" for one in self.rows.values())

    def sequence_at(self, position: int) -> int:
        """Tokens in a sample of the batch that begins at a position."""
        return next((length for start, length in reversed(self.lengths) if start <= position), self.sequence)

    def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(number of the source, row in it) of positions [n] that rise."""
        parts = [self._stretch(n) for n in range(int(positions[0]) // STRETCH, int(positions[-1]) // STRETCH + 1)]
        here = positions - positions[0] // STRETCH * STRETCH
        source, number = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return source[here], number[here]

    @cached_property
    def _stretch(self) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        """Places of STRETCH positions at once, since a call costs more than the numbers in it."""

        @lru_cache(maxsize=4)
        def stretch(n: int) -> tuple[np.ndarray, np.ndarray]:
            source, _, number = self.order.at(np.arange(n * STRETCH, (n + 1) * STRETCH))
            return source, number

        return stretch

    def batch(self, position: int, rows: int, rank: int = 0, ranks: int = 1) -> Batch:
        """Rows `position` to `position + rows`, every `ranks`-th for a rank; a row is row / sequence samples."""
        positions = np.arange(position + rank, position + rows, ranks)
        source, number = self.places(positions)
        read = Windows.empty(len(positions), self.row, padded=self._padded)
        places = np.arange(len(positions))
        for one, here in groups(source):
            self._fill(self.order.sources[one], number[here], places[here], read)
        sequence = self.sequence_at(position)
        split, samples = (-1, sequence), self.row // sequence
        first = positions[:, None] * self.row + np.arange(0, self.row, sequence)  # token of the run, of each sample
        shortest = self.lengths[0][1] if self.lengths else self.sequence
        documents = read.documents[:, :-1].reshape(split)
        return Batch(
            tokens=read.tokens[:, :-1].reshape(split),
            targets=read.tokens[:, 1:].reshape(split),
            weights=read.weights.reshape(split),
            documents=documents,
            rows=first.ravel() // shortest,  # samples of any length in a run have numbers of their own
            positions=restarting(documents)[..., None] if self.apart else running(len(documents), sequence),
            seed=self.order.seed,
            sources=tuple(map(self.order.sources.__getitem__, source.repeat(samples).tolist())),
        )

    def _fill(self, source: str, numbers: np.ndarray, places: np.ndarray, into: Windows) -> None:
        """Writes rows of a source into a batch. Raises DamagedError where a shard is lost, unless somebody is told."""
        rows = self.rows[source]
        try:
            return rows.fill(numbers, places, into)
        except DamagedError:
            pass
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            try:
                rows.fill(np.array([number]), np.array([place]), into)
            except DamagedError as error:
                entry = rows.entry(number)
                found = Lost(source, error.where, error.what, entry.documents, entry.tokens)
                if self.lost is None:
                    expected = f"the file as it was; {SKIP}" if rows.catalogue.at else f"{AGAIN}; {SKIP}"
                    raise DamagedError(found.text, where=found.shard, expected=expected) from None
                into.tokens[place], into.documents[place], into.weights[place] = rows.catalogue.end or 0, 0, 0
                if entry.name not in self._lost:
                    self._lost.add(entry.name)
                    self.lost(found)

    @cached_property
    def _lost(self) -> set[str]:
        return set()

    def ahead(self, position: int, rows: int) -> None:
        """Begins to fetch the shards of the rows from a position on, if they are elsewhere."""
        if not any(one.remote for one in self.rows.values()):
            return
        source, number = self.places(np.arange(position, position + rows))
        for one, here in groups(source):
            self.rows[self.order.sources[one]].ahead(number[here].tolist())


def doublings(first: int, sequence: int, rows: int) -> tuple[tuple[int, int], ...]:
    """Lengths that double from `first` to `sequence`, those before the last for equal parts of `rows` positions.

    Short sequences first cost less and steady the start (Li et al. 2022, arXiv 2108.06084); few lengths are few shapes.
    """
    count = (sequence // first).bit_length() - 1
    return tuple((rows * i // max(count, 1), first << i) for i in range(count + 1))


@lru_cache(maxsize=8)
def running(samples: int, sequence: int) -> np.ndarray:
    """0, 1, 2 … in every sample, int64 [samples, sequence, 1]: one array for all batches, read-only."""
    return np.broadcast_to(np.arange(sequence)[:, None], (samples, sequence, 1))


def restarting(documents: np.ndarray) -> np.ndarray:
    """Places from where each document begins in its sample, int64 [batch, seq], of document numbers [batch, seq]."""
    place = np.arange(documents.shape[1])
    first = np.zeros(documents.shape, np.int64)
    np.copyto(first[:, 1:], place[1:], where=documents[:, 1:] != documents[:, :-1])
    return place - np.maximum.accumulate(first, axis=1)

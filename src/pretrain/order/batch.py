"""A batch: the samples at consecutive positions, in numpy, until training moves it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pretrain.order.order import Order
from pretrain.order.pack import Rows

IGNORE = -100  # a target that is not predicted


@dataclass(frozen=True)
class Vocabulary:
    """What objectives need to know of a tokenizer."""

    size: int
    end: int | None = None
    mask: int | None = None
    specials: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Batch:
    """`tokens`, `targets`, `weights` and `documents` [batch, seq]; `rows` [batch] names each sample in the run."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    documents: np.ndarray
    rows: np.ndarray
    positions: np.ndarray  # [batch, seq, axes]
    seed: int = 0
    media: tuple = ()
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def part(self, start: int, stop: int) -> "Batch":
        """Samples `start` to `stop`: a micro-batch."""
        names = ("tokens", "targets", "weights", "documents", "rows", "positions")
        return replace(self, **{name: getattr(self, name)[start:stop] for name in names})


@dataclass(frozen=True)
class Data:
    """What a run reads: an order over the rows of its sources, in samples of `sequence` tokens."""

    order: Order
    rows: Mapping[str, Rows]
    sequence: int

    @property
    def row(self) -> int:
        """Tokens in a row, the unit that positions count."""
        return next(iter(self.rows.values())).row

    def batch(self, position: int, rows: int, rank: int = 0, ranks: int = 1) -> Batch:
        """Rows `position` to `position + rows`, every `ranks`-th for a rank; a row is row / sequence samples."""
        positions = np.arange(position + rank, position + rows, ranks)
        source, _, number = self.order.at(positions)
        names = self.order.sources
        read = [self.rows[names[s]].read(int(n)) for s, n in zip(source, number, strict=True)]
        tokens = np.stack([tokens for tokens, _ in read]).astype(np.int64)
        documents = np.stack([documents for _, documents in read])
        split = (-1, self.sequence)
        inputs = tokens[:, :-1].reshape(split)
        places = np.broadcast_to(np.arange(self.sequence), inputs.shape)[..., None]
        return Batch(
            tokens=inputs,
            targets=tokens[:, 1:].reshape(split),
            weights=np.ones(inputs.shape, np.float32),
            documents=documents[:, :-1].reshape(split),
            rows=np.repeat(positions, self.row // self.sequence),
            positions=places,
            seed=self.order.seed,
        )

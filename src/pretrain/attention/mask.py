"""Who may see whom: one description for every backend."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Every position sees every other."""


@dataclass(frozen=True)
class Causal:
    """A query sees itself and what stands before it; with fewer queries than keys, the queries are the last ones."""


@dataclass(frozen=True)
class Window:
    """A query sees itself, so many keys before it and so many after it: a causal window has none after."""

    before: int
    after: int = 0


def sliding(width: int) -> Window:
    """A published sliding window: its width counts the query; a causal stack sees the half before it (`narrow`)."""
    return Window(width - 1, width - 1)


@dataclass(frozen=True, eq=False)
class Documents:
    """Causal or full inside a document, or through a window, nothing across; fewer queries than keys are the last ones.

    `ids` [batch, seq] rise by one where a document starts; `lengths` of each row's documents are counted if not said.
    """

    ids: Tensor
    causal: bool = True
    window: Window | None = None
    lengths: Sequence[Sequence[int]] | None = None

    @property
    def inside(self) -> "Full | Causal | Window":
        """Who sees whom in one document."""
        return self.window or (Causal() if self.causal else Full())

    def counted(self) -> Sequence[Sequence[int]]:
        """Lengths of each row's documents."""
        if self.lengths is not None:
            return self.lengths
        return [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in self.ids]


def latest(lengths: Sequence[int], count: int) -> list[int]:
    """How many places of each document are among the last `count` of a row."""
    first = sum(lengths) - count
    return [min(length, max(end - first, 0)) for length, end in zip(lengths, accumulate(lengths), strict=True)]


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first `lengths` [batch] positions see each other; those after them see what stands before, and themselves."""

    lengths: Tensor


Mask = Full | Causal | Window | Documents | Prefix


def narrow(mask: Mask, window: Window | None) -> Mask:
    """What a layer sees through a window of its own; a causal mask stays causal. Raises ValueError for a prefix."""
    if window is None:
        return mask
    if isinstance(mask, Full):
        return window
    if isinstance(mask, Causal):
        return Window(window.before)
    if isinstance(mask, Documents):
        return replace(mask, window=Window(window.before) if mask.causal else window)
    raise ValueError(f"a window over {mask} is not defined")


def reach(mask: "Full | Causal | Window") -> tuple[int | None, int | None]:
    """(keys before, keys after) that a query sees; None where there is no bound."""
    if isinstance(mask, Window):
        return mask.before, mask.after
    return None, 0 if isinstance(mask, Causal) else None

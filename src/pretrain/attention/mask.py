"""Who may see whom: one description for every backend."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Every position sees every other."""


@dataclass(frozen=True)
class Causal:
    """A query sees itself and what stands before it; with fewer queries than keys, the queries are the last ones."""


@dataclass(frozen=True, eq=False)
class Documents:
    """Causal or full inside a document, nothing across; `ids` [batch, seq] rise by one where a document starts."""

    ids: Tensor
    causal: bool = True


Mask = Full | Causal | Documents

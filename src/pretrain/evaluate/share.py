"""Which batches a rank scores: in a pass without gradient it has whole sequences, so those of `cp` have their own too;
ranks that divide experts, stages or matrices among them go through the same ones."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch

from pretrain.parallel.apply import Ranks

T = TypeVar("T")


def shared(batches: Iterable[T], ranks: Ranks) -> Iterator[tuple[T, bool]]:
    """(a batch to compute, whether it counts here): every batch counts on one rank of those that `total` adds up, and
    all compute equally many, since each pass asks all for their weights."""
    each = ranks.layout.expert_shard
    size, place = ranks.layout.replicate * each, ranks.place("replicate") * each + ranks.place("expert_shard")
    left = iter(batches)
    while group := list(islice(left, size)):
        yield group[min(place, len(group) - 1)], place < len(group) and ranks.place("ep") == 0


def total(value: float, ranks: Ranks, device: torch.device) -> float:
    """The sum of what ranks have counted; all of them call it."""
    return float(ranks.sum_over_data(torch.tensor(value, dtype=torch.float64, device=device)))

"""Next-token prediction (Shannon 1948; Bengio et al. 2003)."""

from dataclasses import dataclass
from typing import ClassVar

from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Cost, Given
from pretrain.order.batch import Batch, Vocabulary


@dataclass(frozen=True)
class NextToken:
    """Predicts every token from those before it."""

    causal: ClassVar[bool] = True
    ahead: ClassVar[int] = 0

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """The batch as it is: a row carries the token after it."""
        return batch

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        """By name."""
        return {"next_token": cost(given.hidden, given.targets, given.weights)}

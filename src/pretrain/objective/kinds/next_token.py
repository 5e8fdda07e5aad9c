"""Next-token prediction (Shannon 1948; Bengio et al. 2003)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pretrain.objective.cross_entropy import Loss, cross_entropy
from pretrain.order.batch import Batch, Vocabulary


@dataclass(frozen=True)
class NextToken:
    """Predicts every token from those before it."""

    causal: ClassVar[bool] = True

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """The batch as it is: a row carries the token after it."""
        return batch

    def loss(self, hidden: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor, z_loss: float) -> dict[str, Loss]:
        """By name; hidden [batch, seq, embed], targets and weights [batch, seq]."""
        return {"next_token": cross_entropy(hidden, head, targets, weights, z_loss=z_loss)}

"""Multi-token prediction by sequential modules (DeepSeek-AI 2024, DeepSeek-V3, arXiv 2412.19437, 2.2).

Module k sees the states of the one before it beside the embedding of the token k places on, runs one more block, and
predicts the token after that with the model's own head. The modules (model/ahead.py) are learned and saved with the
model and left out of its release, which is the plain model.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Cost, Given
from pretrain.order.batch import IGNORE, Batch, Vocabulary


@dataclass(frozen=True)
class MultiToken:
    """Predicts the next token and, with `weight` over all modules together, the `ahead` ones after it."""

    causal: ClassVar[bool] = True
    ahead: int = 1
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.ahead < 1 or self.weight <= 0:
            raise ValueError(f"ahead = {self.ahead}, weight = {self.weight}; expected at least 1, and above 0")

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """`extra` holds targets and weights of the modules, [batch, ahead, seq]: those of k places on, where that place
        lies in the sample and in the same document."""
        targets = np.full((len(batch.tokens), self.ahead, batch.tokens.shape[1]), IGNORE, np.int64)
        weights = np.zeros(targets.shape, np.float32)
        for k in range(1, self.ahead + 1):
            same = batch.documents[:, k:] == batch.documents[:, :-k]
            targets[:, k - 1, :-k] = np.where(same, batch.targets[:, k:], IGNORE)
            weights[:, k - 1, :-k] = batch.weights[:, k:]
        return replace(batch, extra={"targets": targets, "weights": weights * (self.weight / self.ahead)})

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        """By name; the modules' weights carry the factor, so that the sum is what is learned from."""
        found = {"next_token": cost(given.hidden, given.targets, given.weights)}
        for k, hidden in enumerate(given.ahead):
            found[f"ahead_{k + 1}"] = cost(hidden, given.extra["targets"][:, k], given.extra["weights"][:, k])
        return found

"""Masked language modelling (Devlin et al. 2018, arXiv 1810.04805, 3.1), with another mask in each epoch (Liu et al.
2019, RoBERTa, arXiv 1907.11692, 4.1), since the draw follows a sample's place in the run. ModernBERT (Warner et al.
2024, arXiv 2412.13663, 2.2) has a rate of 0.3."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.random import uniform
from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Cost, Given
from pretrain.order.batch import IGNORE, Batch, Vocabulary


@dataclass(frozen=True)
class Masked:
    """Predicts `rate` of the tokens, or of the words: `hidden` of them masked, `replaced` by any, the rest left."""

    causal: ClassVar[bool] = False
    ahead: ClassVar[int] = 0
    rate: float = 0.15
    hidden: float = 0.8
    replaced: float = 0.1
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.rate <= 1 and min(self.hidden, self.replaced) >= 0 and self.hidden + self.replaced <= 1):
            raise ValueError("expected 0 < rate ≤ 1, and hidden and replaced that are 1 together or less")

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """Masked tokens, and as targets the chosen ones; specials and what has no weight are not among them.

        Raises UserError.
        """
        if vocabulary.mask is None:
            raise UserError("the tokenizer has no mask token", expected="<|mask|> (tokenizer.reserved ≥ 3), or [MASK]")
        shape = batch.tokens.shape[1:]
        tags = ("masked.pick", "masked.kind", "masked.other")
        pick, kind, other = (uniform(batch.seed, batch.rows, tag, shape) for tag in tags)
        if self.whole_words:
            pick = np.take_along_axis(pick, word_starts(batch, vocabulary), 1)
        own = batch.own_weights
        chosen = (pick < self.rate) & ~vocabulary.is_special(batch.tokens) & (own > 0)
        tokens = batch.tokens.copy()
        tokens[chosen & (kind < self.hidden)] = vocabulary.mask
        swap = chosen & (kind >= self.hidden) & (kind < self.hidden + self.replaced)
        tokens[swap] = vocabulary.ordinary(other[swap])
        return replace(batch, tokens=tokens, targets=np.where(chosen, batch.tokens, IGNORE), weights=own)

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        """By name; the head sees the chosen places alone."""
        chosen = given.targets != IGNORE
        return {"masked": cost(given.hidden[chosen], given.targets[chosen], given.weights[chosen])}


def word_starts(batch: Batch, vocabulary: Vocabulary) -> np.ndarray:
    """The place of the first token of each token's word, int64 [batch, seq]; a word ends with its document."""
    assert vocabulary.joins is not None, "a vocabulary that was made of a tokenizer"
    left, right = vocabulary.joins[0], vocabulary.joins[1]
    begins = np.ones(batch.tokens.shape, bool)
    same = batch.documents[:, 1:] == batch.documents[:, :-1]
    begins[:, 1:] = ~(left[batch.tokens[:, 1:]] & right[batch.tokens[:, :-1]] & same)
    return np.maximum.accumulate(np.where(begins, np.arange(batch.tokens.shape[1]), 0), 1)

"""Masked diffusion (Sahoo et al. 2024, MDLM, arXiv 2406.07524, 3.2; Nie et al. 2025, LLaDA, arXiv 2502.09992, 2.1).

A sample's level t is uniform; each token is hidden with probability t; -log p of the hidden ones, over t, is in
expectation a bound on -log p of the text, under the linear schedule.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.random import uniform
from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Cost, Given
from pretrain.order.batch import IGNORE, Batch, Vocabulary

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio: its multiples lie evenly (Weyl 1916)


@dataclass(frozen=True)
class Diffusion:
    """Hides tokens at a level drawn for each sample, never below `least`; `even` spreads neighbours' levels evenly."""

    causal: ClassVar[bool] = False
    ahead: ClassVar[int] = 0
    least: float = 1e-3
    even: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise ValueError(f"least = {self.least}; expected a level above 0, at most 1")

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """Hidden tokens; targets are all that stand for text and have a weight; `extra["scale"]` is 1 / t where one is
        hidden, 0 elsewhere. Raises UserError."""
        if vocabulary.mask is None:
            raise UserError("the tokenizer has no mask token", expected="<|mask|> (tokenizer.reserved ≥ 3), or [MASK]")
        level = self.least + (1 - self.least) * self._levels(batch)[:, None]
        own = batch.own_weights
        text = ~vocabulary.is_special(batch.tokens) & (own > 0)
        hidden = (uniform(batch.seed, batch.rows, "diffusion.hide", batch.tokens.shape[1:]) < level) & text
        return replace(
            batch,
            tokens=np.where(hidden, vocabulary.mask, batch.tokens),
            targets=np.where(text, batch.tokens, IGNORE),
            weights=own,
            extra={"scale": np.where(hidden, 1 / level, 0).astype(np.float32)},
        )

    def _levels(self, batch: Batch) -> np.ndarray:
        """In [0, 1), float64 [batch]."""
        if not self.even:
            return uniform(batch.seed, batch.rows, "diffusion.level", ()).astype(np.float64)
        start = uniform(batch.seed, np.zeros(1, np.int64), "diffusion.start", ())
        return ((batch.rows.astype(np.uint64) * GOLDEN >> np.uint64(11)) * 2.0**-53 + start) % 1

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        """By name; counted over all targets, hidden or not, as the bound is a bound a token of the text."""
        hidden = given.extra["scale"] > 0
        weights = given.weights[hidden] * given.extra["scale"][hidden]
        found = cost(given.hidden[hidden], given.targets[hidden], weights)
        return {"diffusion": Loss(found.total, given.weights[given.targets != IGNORE].sum())}

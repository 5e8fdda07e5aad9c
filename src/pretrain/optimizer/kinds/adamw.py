"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pretrain.model.weights import Weight
from pretrain.optimizer.fused import Fused
from pretrain.optimizer.optimizer import groups


@dataclass(frozen=True)
class AdamW:
    """Matrices and embeddings decay by `weight_decay` · lr a step, vectors do not."""

    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1

    def build(self, module: nn.Module, rows: Sequence[Weight]) -> Fused:
        """The optimizer of a module's weights."""
        found = groups(module, rows)
        decayed = {**found["matrix"], **found["embedding"]}
        betas = (self.beta1, self.beta2)
        return Fused([(decayed, self.lr, self.weight_decay), (found["vector"], self.lr, 0.0)], betas, self.eps)

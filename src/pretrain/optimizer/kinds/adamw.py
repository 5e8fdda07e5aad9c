"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pretrain.model.weights import Weight
from pretrain.optimizer.fused import Fused, parts
from pretrain.optimizer.optimizer import Wholly, groups, here
from pretrain.precision.rounding import UNSEEDED, Rounding
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class AdamW:
    """Matrices and embeddings decay by `weight_decay` · lr a step, vectors do not."""

    lr: float = key("learning rate", 3e-4, at_least=0)
    beta1: float = key("decay of the mean gradient", 0.9, at_least=0, below=1)
    beta2: float = key("decay of the mean square", 0.95, at_least=0, below=1)
    eps: float = key("beside the root of the mean square", 1e-8, at_least=0)
    weight_decay: float = key("of matrices and embeddings", 0.1, at_least=0)

    def build(
        self, module: nn.Module, rows: Sequence[Weight], wholly: Wholly = here, rounding: Rounding = UNSEEDED
    ) -> Fused:
        """The optimizer of a module's weights."""
        found = groups(module, rows)
        decayed = {**found["matrix"], **found["embedding"]}
        matrices = parts(decayed, rows, self.lr, self.weight_decay, self.eps)
        vectors = parts(found["vector"], rows, self.lr, 0.0, self.eps)
        return Fused([*matrices, *vectors], (self.beta1, self.beta2), rounding)

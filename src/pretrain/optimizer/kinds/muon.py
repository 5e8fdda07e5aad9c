"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): orthogonalised momentum for the hidden matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.model.weights import Weight, expand, local
from pretrain.optimizer.fused import Fused, parts
from pretrain.optimizer.optimizer import Wholly, groups, here
from pretrain.precision.rounding import UNSEEDED, Rounding
from pretrain.recipe.schema import key

QUINTIC = (3.4445, -4.7750, 2.0315)  # published: steep at zero, so that small singular values rise fast


@dataclass(frozen=True)
class Muon:
    """Hidden matrices by Muon, embeddings, head and vectors by AdamW at `adamw_lr`."""

    lr: float = key("learning rate of the matrices", 0.02, at_least=0)
    momentum: float = key("decay of the mean gradient", 0.95, at_least=0, below=1)
    iterations: int = key("of Newton–Schulz", 5, at_least=1)
    weight_decay: float = key("of the matrices", 0.0, at_least=0)
    adamw_lr: float = key("learning rate of all others", 3e-3, at_least=0)
    beta1: float = key("decay of the mean gradient", 0.9, at_least=0, below=1)
    beta2: float = key("decay of the mean square", 0.95, at_least=0, below=1)
    eps: float = key("beside the root of the mean square", 1e-8, at_least=0)

    def build(
        self, module: nn.Module, rows: Sequence[Weight], wholly: Wholly = here, rounding: Rounding = UNSEEDED
    ) -> "MuonAndAdamW":
        """The optimizer of a module's weights."""
        found = groups(module, rows)
        rest = {**found["embedding"], **found["vector"]}
        scales = {weight.name: weight.scale.orthogonal_lr for weight in expand(rows)}
        others = Fused(parts(rest, rows, self.adamw_lr, 0.0, self.eps), (self.beta1, self.beta2), rounding)
        return MuonAndAdamW(self, found["matrix"], scales, others, wholly, rounding)


class MuonAndAdamW:
    """Matrices of one shape are orthogonalised together, each by itself: every expert's of a stack, too; `wholly` puts
    together what ranks hold in parts."""

    def __init__(
        self,
        options: Muon,
        matrices: Mapping[str, nn.Parameter],
        scales: Mapping[str, float],
        rest: Fused,
        wholly: Wholly,
        rounding: Rounding,
    ) -> None:
        self.options, self.matrices, self.rest, self.wholly = options, matrices, rest, wholly
        self.rounding, self.steps = rounding, 0
        self.scales = [scales[name] for name in matrices]
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in matrices.items()}

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update with every learning rate times `scale`."""
        o = self.options
        held = [local(parameter.data) for parameter in self.matrices.values()]
        kept = [local(moment) for moment in self.momentum.values()]
        gradients = _wide([local(p.grad) for p in self.matrices.values() if p.grad is not None])
        parameters, moments = _wide(held), _wide(kept)
        torch._foreach_lerp_(moments, gradients, 1 - o.momentum)
        nesterov = torch._foreach_lerp(gradients, moments, o.momentum)
        updates = self.wholly(dict(zip(self.matrices, nesterov, strict=True)), self.update)
        if o.weight_decay:
            torch._foreach_mul_(parameters, 1 - o.lr * scale * o.weight_decay)
        moved = torch._foreach_mul([updates[name] for name in self.matrices], self.scales)
        torch._foreach_add_(parameters, moved, alpha=-o.lr * scale)
        for name, *four in zip(self.matrices, held, parameters, kept, moments, strict=True):
            if four[0].dtype is torch.bfloat16:
                self.rounding.store(self.steps, name, [(four[0], four[1]), (four[2], four[3])])
        self.steps += 1
        self.rest.step(scale)

    def update(self, stack: Tensor) -> Tensor:
        """Of whole matrices of one shape: tall ones move as much more as they are taller."""
        rows, columns = stack.shape[-2:]
        flat = orthogonal(stack.flatten(0, -3), self.options.iterations)
        return flat.view(stack.shape) * max(1, rows / columns) ** 0.5

    def state(self) -> dict[str, Tensor]:
        """Momentum by name, and AdamW's state."""
        return {**{f"momentum.{name}": value for name, value in self.momentum.items()}, **self.rest.state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved state."""
        for name, value in self.momentum.items():
            value.copy_(state[f"momentum.{name}"])
        self.steps = int(state["steps"]) if "steps" in state else 0
        self.rest.load(state)


def _wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those in bfloat16 as float32, the others themselves."""
    return [one.float() if one.dtype is torch.bfloat16 else one for one in tensors]


def orthogonal(x: Tensor, iterations: int) -> Tensor:
    """About u vᵀ of x = u s vᵀ, [matrices, rows, columns]: Newton–Schulz, singular values end in about [0.7, 1.2]."""
    a, b, c = QUINTIC
    wide = x.shape[-2] <= x.shape[-1]
    y = x if wide else x.mT
    y = y / (torch.linalg.matrix_norm(y, keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = y @ y.mT
        y = a * y + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ y
    return y if wide else y.mT

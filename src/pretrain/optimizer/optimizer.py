"""What training asks of an optimizer, and which of a model's weights are matrices, embeddings and vectors."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pretrain.model.weights import Group, Weight, expand


class Optimizer(Protocol):
    """Moves weights by their gradients; its state is a flat table of tensors, "momentum.blocks.0.mlp.up.weight"."""

    def step(self, scale: float) -> None:
        """One update with every learning rate times `scale`."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The state by name; tensors are shared, not copied."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes over a saved state."""
        ...


Function = Callable[[Tensor], Tensor]
Wholly = Callable[[Mapping[str, Tensor], Function], Mapping[str, Tensor]]


def here(matrices: Mapping[str, Tensor], function: Function) -> Mapping[str, Tensor]:
    """A function of stacks of matrices [matrices, rows, columns], a stack for each shape: the seam where ranks that
    hold parts put each matrix together on one of them."""
    alike: dict[torch.Size, dict[str, Tensor]] = defaultdict(dict)
    for name, matrix in matrices.items():
        alike[matrix.shape][name] = matrix
    out = dict[str, Tensor]()
    for part in alike.values():
        out |= zip(part, function(torch.stack(list(part.values()))).unbind(), strict=True)
    return out


def groups(module: nn.Module, rows: Sequence[Weight]) -> dict[Group, dict[str, nn.Parameter]]:
    """Every parameter once, by what it is: its axes say so. Embedding and head both count as embeddings."""
    out: dict[Group, dict[str, nn.Parameter]] = {"matrix": {}, "embedding": {}, "vector": {}}
    for weight in expand(rows):
        if weight.tied is None and not weight.buffer:
            out[weight.group][weight.name] = module.get_parameter(weight.name)
    return out

"""What training asks of an optimizer, and which of a model's weights are matrices, embeddings and vectors."""

from collections.abc import Sequence
from typing import Protocol

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


def groups(module: nn.Module, rows: Sequence[Weight]) -> dict[Group, dict[str, nn.Parameter]]:
    """Every parameter once, by what it is: its axes say so. Embedding and head both count as embeddings."""
    out: dict[Group, dict[str, nn.Parameter]] = {"matrix": {}, "embedding": {}, "vector": {}}
    for weight in expand(rows):
        if weight.tied is None and not weight.buffer:
            out[weight.group][weight.name] = module.get_parameter(weight.name)
    return out

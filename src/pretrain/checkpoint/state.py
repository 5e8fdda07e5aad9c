"""State: all that a checkpoint holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from pretrain.model.weights import Axis, Weight
from pretrain.optimizer.optimizer import Optimizer
from pretrain.order.order import History
from pretrain.parallel.apply import Ranks


@dataclass
class State:
    """Weights, optimizer, steps taken, rows consumed, the history of the order, what its guard remembers (loss and
    norm of the last steps); where ranks hold parts, which."""

    model: nn.Module
    rows: Sequence[Weight]
    optimizer: Optimizer
    step: int
    position: int
    history: History
    axes: Mapping[str, Axis] = field(default_factory=dict)
    ranks: Ranks = field(default_factory=Ranks)
    recent: list[tuple[float, float]] = field(default_factory=list)

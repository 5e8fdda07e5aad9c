"""State: all that a checkpoint holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pretrain.model.weights import Weight
from pretrain.optimizer.optimizer import Optimizer
from pretrain.order.order import History


@dataclass
class State:
    """Weights, optimizer, steps taken, rows consumed, and the history of the order."""

    model: nn.Module
    rows: Sequence[Weight]
    optimizer: Optimizer
    step: int
    position: int
    history: History

"""One optimizer step over micro-batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.checkpoint.state import State
from pretrain.objective import objective as objectives
from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Objective
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.precision.policy import Policy


@dataclass(frozen=True)
class Steps:
    """What every step of a run shares."""

    objective: Objective
    vocabulary: Vocabulary
    policy: Policy
    documents: bool  # whether attention stops at document bounds
    clip: float
    z_loss: float
    micro_batch: int  # samples in a forward pass
    forward: Callable[..., tuple[Any, ...]]  # the model, compiled or not
    sequence: int = 0  # tokens in the samples that micro_batch counts, if some batches have shorter ones


@dataclass(frozen=True)
class Result:
    """Mean loss in nats a token and the gradient's norm before clipping, still on the device, and the mean of each of
    the objective's losses over what it counts."""

    loss: Tensor
    gradient_norm: Tensor
    losses: dict[str, Tensor]


def train_step(state: State, batch: Batch, steps: Steps, scale: float) -> Result:
    """Moves the weights once. The weights of all targets are summed before the first backward pass, so that a
    micro-batch counts by its targets, not as one of several."""
    batch = steps.objective.prepare(batch, steps.vocabulary)
    count = float(np.where(batch.targets == IGNORE, 0, batch.weights).sum(dtype=np.float64))
    parameters = list(state.model.parameters())
    for parameter in parameters:
        parameter.grad = None
    total: Tensor | float = 0.0
    parts: dict[str, Loss] = {}
    micro = steps.micro_batch * max(steps.sequence // batch.tokens.shape[1], 1)
    for start in range(0, len(batch.tokens), micro):
        part = batch.part(start, start + micro)
        found = losses(state.model, part, steps)
        loss = sum_of(found) / max(count, 1.0)
        loss.backward()
        parts = {name: one.detached + parts[name] if parts else one.detached for name, one in found.items()}
        total = total + loss.detach()
    norm = clip(parameters, steps.clip)
    state.optimizer.step(scale)
    assert isinstance(total, Tensor), "a batch has samples"
    return Result(total, norm, {name: part.total / part.count.clamp_min(1e-9) for name, part in parts.items()})


def losses(model: nn.Module, batch: Batch, steps: Steps) -> dict[str, Loss]:
    """The objective's losses of one forward pass."""
    with steps.policy.autocast():
        return objectives.losses(
            model, steps.forward, steps.objective, batch, documents=steps.documents, z_loss=steps.z_loss
        )


def sum_of(parts: dict[str, Loss]) -> Tensor:
    """The total of all losses."""
    return sum((part.total for part in parts.values()), torch.zeros(()))


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """The norm of all gradients; they are scaled to `most` if it is larger (Pascanu et al. 2013). 0 leaves them."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if most:
        torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm

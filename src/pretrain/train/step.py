"""One optimizer step over micro-batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.checkpoint.state import State
from pretrain.model.layers.experts import Routing
from pretrain.objective import objective as objectives
from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Objective, moved
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.parallel.apply import Ranks, norms
from pretrain.parallel.context import columns
from pretrain.parallel.pipeline import Way
from pretrain.precision.policy import Policy
from pretrain.recipe.train import Balance
from pretrain.train.clock import Clock
from pretrain.train.routers import Routers


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
    ranks: Ranks = field(default_factory=Ranks)
    balance: Balance = field(default_factory=Balance)
    before_update: Callable[[], None] = lambda: None  # waits for those that still read the weights
    clock: Clock = field(default_factory=lambda: Clock("cpu"))
    leaves: Callable[[], bool] | None = None  # whether to leave a step, asked of all ranks between micro-batches


class Left(Exception):
    """A step was left between two micro-batches: nothing has moved."""


@dataclass(frozen=True)
class Result:
    """Mean loss in nats a token and the gradient's norm before clipping, still on the device, and the mean of each of
    the objective's losses over what it counts; where there are experts, what their routers did."""

    loss: Tensor
    gradient_norm: Tensor
    losses: dict[str, Tensor]
    routing: Routing | None = None
    routed: int = 0  # tokens that it counts
    taken: bool = True  # whether the weights have moved


def train_step(
    state: State, batch: Batch, steps: Steps, scale: float, takes: Callable[[float, float], bool] | None = None
) -> Result:
    """Moves the weights once, by this rank's rows of the batch and all others'. The weights of all targets are summed
    before the first backward pass, so that a micro-batch, or a rank, counts by its targets, not as one of several. What
    balances experts is no part of the loss that is told. Where `takes` refuses the loss and the norm, nothing moves."""
    ranks, routers, routed = steps.ranks, Routers.of(state.model), batch.own_weights > 0
    batch = steps.objective.prepare(batch, steps.vocabulary)
    if ranks.layout.cp > 1:
        places = columns(batch.tokens.shape[1], ranks.place("cp"), ranks.layout.cp)
        batch, routed = batch.at(places), routed[:, places]
    counts = np.where(batch.targets == IGNORE, 0, batch.weights).sum(dtype=np.float64), routed.sum()
    own = *counts, len(batch.tokens) / ranks.layout.cp
    count, tokens, sequences = map(
        float, ranks.sum_over_data(torch.tensor(own, dtype=torch.float64, device=steps.policy.device))
    )
    count = max(count, 1.0)
    ranks.fold(state.model)
    parameters = list(state.model.parameters())
    for parameter in parameters:
        parameter.grad = None
    total: Tensor | float = 0.0
    parts: dict[str, Loss] = {}
    micro = steps.micro_batch * max(steps.sequence // batch.documents.shape[1], 1)
    pieces = [batch.part(start, start + micro) for start in range(0, len(batch.tokens), micro)]

    def take(number: int, way: Way) -> Tensor:
        nonlocal parts, total
        if number and steps.leaves is not None and steps.leaves():
            raise Left
        steps.clock.mark("backward" if number else "communication")
        counted = moved(routed[number * micro : (number + 1) * micro], parameters[0].device)
        forward = routers.watched(way, counted, routers.before(state.model, way.first))
        found = losses(state.model, pieces[number], replace(steps, forward=forward), ends=way.ends)
        loss = sum_of(found) / count
        parts = {name: one.detached + parts[name] if parts else one.detached for name, one in found.items()}
        total = total + loss.detach()
        steps.clock.mark("forward")
        return loss + routers.cost(steps.balance, sequences, tokens) / ranks.layout.tp

    ranks.passes(state.model, state.axes, steps.forward, take, [piece.tokens.shape for piece in pieces])
    steps.clock.mark("backward")
    assert isinstance(total, Tensor), "a batch has samples"
    ranks.sum_gradients(state.model, state.rows)
    norm = clip(parameters, steps.clip) if ranks.alone else ranks.clip(state.model, state.rows, steps.clip)
    if routers.seen is not None:
        routers.seen = ranks.sum_over_data(ranks.sum_over_stages(routers.seen))
    sums = torch.stack([total, *(x for part in parts.values() for x in (part.total, part.count))])
    total, *rest = ranks.sum_over_data(ranks.sum_over_stages(sums)).unbind()
    steps.clock.mark("communication")
    means = [total / count.clamp_min(1e-9) for total, count in zip(rest[::2], rest[1::2], strict=True)]
    taken = takes is None or takes(float(total), float(norm))
    if taken:
        steps.before_update()
        state.optimizer.step(scale)
        routers.rebalance(steps.balance.bias_rate)
    steps.clock.mark("optimizer")
    return Result(total, norm, dict(zip(parts, means, strict=True)), routers.found, int(tokens), taken)


def losses(model: nn.Module, batch: Batch, steps: Steps, *, ends: bool = True) -> dict[str, Loss]:
    """The objective's losses of one forward pass, nothing if it is not the stack's end."""
    with steps.policy.autocast():
        return objectives.losses(
            model, steps.forward, steps.objective, batch, documents=steps.documents, z_loss=steps.z_loss, ends=ends
        )


def sum_of(parts: dict[str, Loss]) -> Tensor:
    """The total of all losses."""
    return sum((part.total for part in parts.values()), torch.zeros(()))


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """The norm of all gradients; they are scaled to `most` if it is larger (Pascanu et al. 2013). 0 leaves them."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(norms(gradients))
    if most:
        torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm

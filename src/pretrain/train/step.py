"""One optimizer step over micro-batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.checkpoint.state import State
from pretrain.objective.cross_entropy import Loss
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.precision.policy import Policy


class Objective(Protocol):
    """A leaf of `objective/kinds`."""

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """Inputs and targets, in numpy; a draw depends on the seed and each sample's row alone."""
        ...

    def loss(self, hidden: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor, z_loss: float) -> dict[str, Loss]:
        """Sums of losses and of weights by name."""
        ...


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
    forward: Callable[..., tuple[Tensor, Tensor]]  # the model, compiled or not
    sequence: int = 0  # tokens in the samples that micro_batch counts, if some batches have shorter ones


@dataclass(frozen=True)
class Result:
    """Mean loss in nats a token and the gradient's norm before clipping, still on the device."""

    loss: Tensor
    gradient_norm: Tensor


def train_step(state: State, batch: Batch, steps: Steps, scale: float) -> Result:
    """Moves the weights once. The weights of all targets are summed before the first backward pass, so that a
    micro-batch counts by its targets, not as one of several."""
    batch = steps.objective.prepare(batch, steps.vocabulary)
    count = float(np.where(batch.targets == IGNORE, 0, batch.weights).sum(dtype=np.float64))
    parameters = list(state.model.parameters())
    for parameter in parameters:
        parameter.grad = None
    total: Tensor | float = 0.0
    micro = steps.micro_batch * max(steps.sequence // batch.tokens.shape[1], 1)
    for start in range(0, len(batch.tokens), micro):
        part = batch.part(start, start + micro)
        loss = sum_of(losses(state.model, part, steps)) / max(count, 1.0)
        loss.backward()
        total = total + loss.detach()
    norm = clip(parameters, steps.clip)
    state.optimizer.step(scale)
    assert isinstance(total, Tensor), "a batch has samples"
    return Result(total, norm)


def losses(model: nn.Module, batch: Batch, steps: Steps) -> dict[str, Loss]:
    """The objective's losses of one forward pass."""
    head: nn.Linear = model.get_submodule("head")  # type: ignore[assignment]
    device = head.weight.device
    tokens, targets, weights = (moved(array, device) for array in (batch.tokens, batch.targets, batch.weights))
    where: dict[str, Tensor] = {}
    if steps.documents:
        where = {"documents": moved(batch.documents, device), "positions": moved(batch.positions[..., 0], device)}
    with steps.policy.autocast():
        hidden, _ = steps.forward(tokens, **where)
        return steps.objective.loss(hidden, head, targets, weights, steps.z_loss)


def moved(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device; to a GPU through pinned memory, so that it goes on with the step before."""
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


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

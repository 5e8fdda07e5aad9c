"""What training asks of an objective, and the losses of one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.objective.cross_entropy import Loss, Shared, cross_entropy
from pretrain.order.batch import Batch, Vocabulary

Cost = Callable[[Tensor, Tensor, Tensor], Loss]  # of hidden […, embed], targets […] and weights […], under one head


@dataclass(frozen=True)
class Given:
    """What a loss is made of: a batch's arrays on the device, and what the model made of its tokens.

    `hidden` [batch, seq, embed]; `ahead`, the same for each module that looks further ahead.
    """

    hidden: Tensor
    ahead: Sequence[Tensor]
    targets: Tensor
    weights: Tensor
    extra: Mapping[str, Tensor]


class Objective(Protocol):
    """A leaf of `objective/kinds`."""

    causal: ClassVar[bool]  # whether a token sees only what stands before it

    @property
    def ahead(self) -> int:
        """Modules that the model needs beside its own, for tokens further ahead."""
        ...

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """Inputs and targets, in numpy; a draw depends on the seed and each sample's row alone. Raises UserError."""
        ...

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        """Sums of losses and of weights by name; a step divides them all by the weight of the batch's targets."""
        ...


def losses(
    model: nn.Module,
    forward: Callable[..., tuple[Any, ...]],
    objective: Objective,
    batch: Batch,
    *,
    documents: bool,
    z_loss: float = 0.0,
    ends: bool = True,
) -> dict[str, Loss]:
    """Of a prepared batch. `forward` is the model, compiled or not; with `documents`, attention stops at their bounds.

    A model of a user's own is asked for `causal=False` and `ahead=True` only where the objective needs them. Where
    `forward` is not the stack's `ends`, or the head is another rank's, losses are nothing but their names.
    """
    head: nn.Linear = model.get_submodule("head")  # type: ignore[assignment]
    device = next(model.parameters()).device
    asked: dict[str, object] = {} if objective.causal else {"causal": False}
    if objective.ahead:
        asked["ahead"] = True
    if documents:
        asked |= {"documents": moved(batch.documents, device), "positions": moved(batch.positions[..., 0], device)}
    elif batch.columns is not None:
        asked["positions"] = moved(batch.columns[None], device)
    hidden, _, *rest = forward(moved(batch.tokens, device), **asked)
    ahead: tuple[Tensor, ...] = rest[0] if rest else ()
    extra = {name: moved(array, device) for name, array in batch.extra.items()}
    targets, weights = moved(batch.targets, device), moved(batch.weights, device)
    here = ends and isinstance(head, nn.Linear)
    if not here:  # as many as there are targets, of no width and no weight
        hidden, weights = hidden.new_empty(*targets.shape, 0), torch.zeros_like(weights)
        ahead = (hidden,) * objective.ahead
    given = Given(hidden, ahead, targets, weights, extra)

    def cost(hidden: Tensor, targets: Tensor, weights: Tensor) -> Loss:
        softcap: float | None = getattr(head, "softcap", None)  # a plain nn.Linear has none
        shared: Shared | None = getattr(head, "shared", None)
        if not here:
            zero = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
            return Loss(zero, zero.clone())
        return cross_entropy(hidden, head, targets, weights, z_loss=z_loss, softcap=softcap, shared=shared)

    found = objective.loss(given, cost)
    told: Callable[[Loss], Loss] | None = getattr(head, "told", None)  # set where the head is one of several ranks'
    return found if told is None or torch.is_grad_enabled() else {name: told(loss) for name, loss in found.items()}


def moved(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device; to a GPU through pinned memory, so that it goes on with the step before."""
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

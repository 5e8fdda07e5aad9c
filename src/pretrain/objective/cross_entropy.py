"""Cross-entropy over a vocabulary, chunk by chunk: loss and gradients in one pass, never all logits at once.

As in Hsu et al. 2024 (Liger Kernel, arXiv 2410.10989, 3.2): the gradient of the logits is known as soon as they are, so
each chunk's logits are made once, turned into gradients of the hidden states and of the head, and let go.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from pretrain.order.batch import IGNORE

CHUNK_LOGITS = 2**24  # numbers in a chunk of logits: 64 MiB in float32
PIECE_LOGITS = 2**20  # of those, what a CPU's cache holds while they become gradients


class Shared(Protocol):
    """The seam where tensor parallelism adds up what ranks with a part of the vocabulary each have found."""

    rank: int

    def sum(self, x: Tensor) -> Tensor:
        """Over ranks."""
        ...

    def most(self, x: Tensor) -> Tensor:
        """The largest over ranks."""
        ...


@dataclass(frozen=True)
class Loss:
    """A sum of weighted losses in nats and the sum of the weights: micro-batches and ranks add up."""

    total: Tensor
    count: Tensor

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(self.total + other.total, self.count + other.count)

    @property
    def detached(self) -> "Loss":
        """The same sums without their graph."""
        return Loss(self.total.detach(), self.count.detach())

    @property
    def mean(self) -> Tensor:
        """Nats a predicted token."""
        return self.total / self.count


def cross_entropy(
    hidden: Tensor,
    head: nn.Linear,
    targets: Tensor,
    weights: Tensor,
    *,
    z_loss: float = 0.0,
    softcap: float | None = None,
    shared: Shared | None = None,
) -> Loss:
    """Weighted -log p of targets […] given hidden […, embed], plus z_loss · log²Z; the head may have a bias.

    Targets that are IGNORE have no loss and no weight. z-loss: Chowdhery et al. 2022 (PaLM), section 5. With a soft cap
    logits are cap · tanh(logits / cap): Gemma Team 2024 (Gemma 2, arXiv 2408.00118), section 2. With `shared` the head
    holds a rank's part of the vocabulary, and the gradient of hidden is that part's.
    """
    weights = torch.where(targets == IGNORE, 0, weights).flatten()
    kind = hidden.device.type
    compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    rows, wanted = hidden.flatten(0, -2), targets.flatten().clamp_min(0)
    total = _Chunked.apply(rows, head.weight, head.bias, wanted, weights, z_loss, softcap, compute, shared)
    return Loss(total, weights.sum(dtype=total.dtype))


class _Chunked(torch.autograd.Function):
    """Total loss, with the gradients of hidden, head and bias made on the way."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        z_loss: float,
        softcap: float | None,
        compute: torch.dtype,
        shared: Shared | None,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        wanted = hidden.requires_grad or head.requires_grad
        fresh = torch.empty_like if len(hidden) else torch.zeros_like
        kind = head.grad_dtype if head.is_leaf else head.dtype  # wider, where ranks have sent it in bfloat16
        grads = [fresh(hidden), fresh(head, dtype=kind)] if wanted else []
        grads += [torch.zeros_like(bias)] if wanted and bias is not None else []
        matrix = head.to(compute)
        rows = max(CHUNK_LOGITS // head.shape[0], 1)
        cached = shared is None and hidden.device.type == "cpu"
        piece = max(PIECE_LOGITS // head.shape[0], 1) if cached else rows
        own = targets - shared.rank * head.shape[0] if shared else targets
        here = (own >= 0) & (own < head.shape[0])
        own = torch.where(here, own, 0)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            x = hidden[part].to(compute)
            logits = x @ matrix.T
            pieces = (one[part].split(piece) for one in (own, here, weights.to(wide)))
            for some, target, mine, weight in zip(logits.split(piece), *pieces, strict=True):
                scores = some.to(wide) if bias is None else some + bias.to(wide)
                total += _turn(scores, target, mine, weight, z_loss, softcap, shared)
                if wanted:
                    some.copy_(scores)
                if wanted and bias is not None:
                    grads[2] += scores.sum(0)
            if wanted:
                grads[0][part] = logits @ matrix
                _add_product(grads[1], logits, x, first=start == 0)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, up: Tensor) -> tuple[Tensor | None, ...]:
        grads = [grad.mul_(up) for grad in ctx.saved_tensors]  # type: ignore[attr-defined]  # in place: once, then gone
        return (*grads, *[None] * (9 - len(grads)))


def _turn(
    logits: Tensor,
    targets: Tensor,
    here: Tensor,
    weights: Tensor,
    z_loss: float,
    softcap: float | None,
    shared: Shared | None,
) -> Tensor:
    """The loss of logits [rows, vocab], which become its gradient by them; `here` says whose target is among them."""
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    slope = None if softcap is None else 1 - (logits / softcap) ** 2
    chosen, most = logits.gather(-1, targets[:, None])[:, 0] * here, logits.amax(-1)
    powers = logits.sub_(most[:, None]).exp_()  # once: of log Z and of its gradient
    sums, top, share = powers.sum(-1), most, weights
    if shared is not None:
        chosen, top = shared.sum(chosen), shared.most(most.clone())
        sums = shared.sum(sums * (most - top).exp())
        share = weights * (most - top).exp()
    log_z = top + sums.log()
    powers.mul_((share * (1 + 2 * z_loss * log_z) / sums)[:, None])
    powers.scatter_add_(-1, targets[:, None], -(weights * here)[:, None])
    if slope is not None:
        powers.mul_(slope)
    return (weights * (log_z - chosen + z_loss * log_z**2)).sum()


def _add_product(total: Tensor, grad: Tensor, x: Tensor, *, first: bool) -> None:
    """total += gradᵀ x, whatever stood there at first; where dtypes agree, without a product of its own: at vocabulary
    128k 0.75 of the time."""
    if grad.dtype is total.dtype:
        total.addmm_(grad.T, x, beta=0 if first else 1)
    elif first:
        total.copy_(grad.T @ x)
    else:
        total += grad.T @ x


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target [batch, seq], of logits [batch, seq, vocab], in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]

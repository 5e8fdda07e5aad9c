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

CHUNK_LOGITS = 2**23  # numbers in a chunk of logits: 32 MiB in float32


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
        grads = [torch.empty_like(hidden), torch.zeros_like(head)] if wanted else []
        grads += [torch.zeros_like(bias)] if wanted and bias is not None else []
        matrix = head.to(compute)
        rows = max(CHUNK_LOGITS // head.shape[0], 1)
        own = targets - shared.rank * head.shape[0] if shared else targets
        here = (own >= 0) & (own < head.shape[0])
        own = torch.where(here, own, 0)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            x, target, weight = hidden[part].to(compute), own[part], weights[part].to(wide)
            logits = (x @ matrix.T).to(wide)
            if bias is not None:
                logits += bias
            if softcap is not None:
                logits.div_(softcap).tanh_().mul_(softcap)
            log_z = logits.logsumexp(-1)
            chosen = logits.gather(-1, target[:, None])[:, 0]
            if shared is not None:
                top = shared.most(log_z.clone())
                log_z = top + shared.sum((log_z - top).exp()).log()
                chosen = shared.sum(chosen * here[part])
            total += (weight * (log_z - chosen + z_loss * log_z**2)).sum()
            if not wanted:
                continue
            slope = None if softcap is None else 1 - (logits / softcap) ** 2
            grad = logits.sub_(log_z[:, None]).exp_().mul_((weight * (1 + 2 * z_loss * log_z))[:, None])
            grad.scatter_add_(-1, target[:, None], -(weight * here[part])[:, None])
            grad = (grad if slope is None else grad * slope).to(compute)
            grads[0][part] = grad @ matrix
            if grad.dtype is grads[1].dtype:
                grads[1].addmm_(grad.T, x)  # without a product of its own: at vocabulary 128k 0.75 of the time
            else:
                grads[1] += grad.T @ x
            if bias is not None:
                grads[2] += grad.sum(0)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, up: Tensor) -> tuple[Tensor | None, ...]:
        grads = [grad * up for grad in ctx.saved_tensors]  # type: ignore[attr-defined]
        return (*grads, *[None] * (9 - len(grads)))


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target [batch, seq], of logits [batch, seq, vocab], in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]

"""Cross-entropy over a vocabulary, chunk by chunk: loss and gradients in one pass, never all logits at once.

As in Hsu et al. 2024 (Liger Kernel, arXiv 2410.10989, 3.2): the gradient of the logits is known as soon as they are, so
each chunk's logits are made once, turned into gradients of the hidden states and of the head, and let go.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from pretrain.order.batch import IGNORE

CHUNK_LOGITS = 2**23  # numbers in a chunk of logits: 32 MiB in float32


@dataclass(frozen=True)
class Loss:
    """A sum of weighted losses in nats and the sum of the weights: micro-batches and ranks add up."""

    total: Tensor
    count: Tensor

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """Nats a predicted token."""
        return self.total / self.count


def cross_entropy(hidden: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor, *, z_loss: float = 0.0) -> Loss:
    """Weighted -log p of targets [batch, seq] given hidden [batch, seq, embed], plus z_loss · log²Z.

    Targets that are IGNORE have no loss and no weight. z-loss: Chowdhery et al. 2022 (PaLM), section 5.
    """
    weights = torch.where(targets == IGNORE, 0, weights).flatten()
    kind = hidden.device.type
    compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    total = _Chunked.apply(hidden.flatten(0, -2), head.weight, targets.flatten().clamp_min(0), weights, z_loss, compute)
    return Loss(total, weights.sum())


class _Chunked(torch.autograd.Function):
    """Total loss, with the gradients of hidden and head made on the way."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        z_loss: float,
        compute: torch.dtype,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        wanted = hidden.requires_grad or head.requires_grad
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_head = torch.zeros_like(head) if wanted else None
        matrix = head.to(compute)
        rows = max(CHUNK_LOGITS // head.shape[0], 1)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            x, target, weight = hidden[part].to(compute), targets[part], weights[part].to(wide)
            logits = (x @ matrix.T).to(wide)
            log_z = logits.logsumexp(-1)
            chosen = logits.gather(-1, target[:, None])[:, 0]
            total += (weight * (log_z - chosen + z_loss * log_z**2)).sum()
            if grad_hidden is None or grad_head is None:
                continue
            grad = logits.sub_(log_z[:, None]).exp_().mul_((weight * (1 + 2 * z_loss * log_z))[:, None])
            grad.scatter_add_(-1, target[:, None], -weight[:, None])
            grad = grad.to(compute)
            grad_hidden[part] = grad @ matrix
            grad_head += grad.T @ x
        if grad_hidden is not None and grad_head is not None:
            ctx.save_for_backward(grad_hidden, grad_head)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, up: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad_hidden * up, grad_head * up, None, None, None, None


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target [batch, seq], of logits [batch, seq, vocab], in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]

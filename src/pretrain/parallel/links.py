"""What ranks that share matrices say to each other, forward and backward (Shoeybi et al. 2019, arXiv 1909.08053;
sequence parallelism: Korthikanti et al. 2022, arXiv 2205.05198, 4.2.2).

Where no gradient is asked for, every rank holds the whole sequence, of any length: a text is written token by token.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

# Names of torch 2.13, where the older ones warn.
all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def gather(x: Tensor, group: ProcessGroup) -> Tensor:
    """All ranks' parts [batch, seq / tp, …] as [batch, seq, …]; backward sums the gradients and scatters them."""
    return _Gather.apply(x, group) if torch.is_grad_enabled() else x


def scatter_sum(x: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over ranks of [batch, seq, …], this rank's part of the sequence; backward gathers."""
    if torch.is_grad_enabled():
        return _ScatterSum.apply(x, group)
    whole = x.contiguous()
    dist.all_reduce(whole, group=group)
    return whole


def joined(x: Tensor, group: ProcessGroup) -> Tensor:
    """All ranks' parts [..., part] as [..., whole]; it has no backward."""
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, -1)


def once(x: Tensor, group: ProcessGroup) -> Tensor:
    """What all ranks have, on the first of them alone, and zero on the others, whose gradient is zero too."""
    return x * (group.rank() == 0)


def mean(x: Tensor, group: ProcessGroup) -> Tensor:
    """The mean over ranks, which each of them goes on with; backward averages too."""
    return _Mean.apply(x, group)


def _gathered(x: Tensor, group: ProcessGroup) -> Tensor:
    parts = x.new_empty(group.size() * x.shape[0], *x.shape[1:])
    all_gather(parts, x.contiguous(), group=group)
    return parts.unflatten(0, (group.size(), -1)).transpose(0, 1).flatten(1, 2)


def _scattered(x: Tensor, group: ProcessGroup) -> Tensor:
    parts = x.unflatten(1, (group.size(), -1)).transpose(0, 1).flatten(0, 1).contiguous()
    out = parts.new_empty(x.shape[0], x.shape[1] // group.size(), *x.shape[2:])
    reduce_scatter(out, parts, group=group)
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        return _scattered(up, ctx.group), None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _scattered(x, group)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        return _gathered(up, ctx.group), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        out = x / group.size()
        dist.all_reduce(out, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        out = up / ctx.group.size()
        dist.all_reduce(out, group=ctx.group)
        return out, None

"""Expert parallelism: each rank of a group holds some of a layer's experts, and tokens travel to those that they chose
(Lepikhin et al. 2020, arXiv 2006.16668). No token is dropped, so ranks have as many rows as routers send them.

A layer costs, forward, three messages to the group: how many rows each expert gets from each rank (8 bytes an expert),
and rows there and back, 2 · tokens · top_k · width numbers less those that stay, and the two of rows again backward. A
rank waits for its device once, for the sizes of what comes. Ranks without gradient send as well, so all of a group must
call the model equally often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from pretrain.model.layers.experts import Experts, Stacks
from pretrain.model.weights import Axis, Weight
from pretrain.parallel.tensor import keep


@dataclass(frozen=True)
class Dispatch:
    """The seam of experts, for the ranks of a group: rank i has the i-th part of a layer's experts."""

    group: ProcessGroup

    def __call__(self, rows: Tensor, counts: Tensor, stacks: Stacks) -> Tensor:
        """Rows [n, embed] sorted by expert, through `stacks` of wherever their expert is; counts [experts]."""
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts, group=self.group)
        theirs = theirs.view(self.group.size(), -1)  # of every rank, the rows for each expert that is here
        leave, come = torch.stack([counts.view_as(theirs).sum(1), theirs.sum(1)]).tolist()
        expert = torch.arange(theirs.shape[1], device=counts.device).repeat(self.group.size())
        order = expert.repeat_interleave(theirs.flatten(), output_size=sum(come)).argsort(stable=True)
        here = _Exchange.apply(rows, leave, come, self.group)
        out = stacks(here.index_select(0, order), theirs.sum(0))
        return _Exchange.apply(out.index_select(0, order.argsort()), come, leave, self.group)


def spread(model: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], group: ProcessGroup) -> None:
    """Leaves a rank its part of every stack of experts, of `rows` of one weight each, and puts the links between."""
    for weight in rows:
        if weight.stacked:
            each = weight.shape(axes)[0] // group.size()
            keep(model, weight, [(group.rank() * each, (group.rank() + 1) * each)], 0)
    for module in model.modules():
        if isinstance(module, Experts):
            module.dispatch = Dispatch(group)


class _Exchange(torch.autograd.Function):
    """Rows in order of the rank that they go to, `leave` to each: those that `come` from each; backward, back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, leave: list[int], come: list[int], group: ProcessGroup) -> Tensor:
        ctx.way = come, leave, group
        return _sent(rows, leave, come, group)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None]:
        return _sent(up, *ctx.way), None, None, None


def _sent(rows: Tensor, leave: list[int], come: list[int], group: ProcessGroup) -> Tensor:
    out = rows.new_empty(sum(come), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), come, leave, group=group)
    return out

"""Expert parallelism: each rank of a group holds some of a layer's experts, and tokens travel to those that they chose
(Lepikhin et al. 2020, arXiv 2006.16668). No token is dropped, so a rank has as many rows as routers send it.

What a layer says to the group, forward: the number of rows for each expert (8 bytes an expert), then rows there and
back, of a rank 2 · tokens · top_k · width numbers; and as many again backward. The host waits for its device once a
layer, for the sizes of what comes.

Where no gradient is asked for, every rank holds the same tokens, as under tensor parallelism: each makes the rows of
its experts and hears the others'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from pretrain.model.layers.experts import Experts, Stacks
from pretrain.model.weights import Axis, Weight
from pretrain.parallel.tensor import keep

Sizes = Callable[[Tensor, Tensor], list[list[int]]]


def told(rows: Tensor, sums: Tensor) -> list[list[int]]:
    """Rows that leave for each rank and that come from each, of their `sums` [2, ranks] on the device."""
    found: list[list[int]] = sums.tolist()
    return found


def even(rows: Tensor, sums: Tensor) -> list[list[int]]:
    """The same if all ranks had as many: of tensors without numbers."""
    size = sums.shape[1]
    return [[len(rows) // size + (i < len(rows) % size) for i in range(size)]] * 2


@dataclass(frozen=True)
class Dispatch:
    """The seam of experts, for the ranks of a group: rank i has the i-th part of a layer's experts."""

    group: ProcessGroup
    sizes: Sizes = told

    def __call__(self, rows: Tensor, counts: Tensor, stacks: Stacks) -> Tensor:
        """Rows [n, embed] sorted by expert, through `stacks` of wherever their expert is; counts [experts]."""
        ours = counts.view(self.group.size(), -1)  # for each rank's experts
        if not torch.is_grad_enabled():
            return self.alike(rows, ours, stacks)
        device = rows.device.type
        if torch.is_autocast_enabled(device):
            rows = rows.to(torch.get_autocast_dtype(device))  # as the products take them
        theirs = torch.empty_like(ours)  # of each rank, for the experts that are here
        dist.all_to_all_single(theirs, ours, group=self.group)
        leave, come = self.sizes(rows, torch.stack([ours.sum(1), theirs.sum(1)]))
        expert = torch.arange(theirs.shape[1], device=rows.device).repeat(len(theirs))
        order = expert.repeat_interleave(theirs.flatten(), output_size=sum(come)).argsort(stable=True)
        here = _Exchange.apply(rows, leave, come, self.group).index_select(0, order)
        out = stacks(here, theirs.sum(0)).index_select(0, order.argsort())
        return _Exchange.apply(out, come, leave, self.group)

    def alike(self, rows: Tensor, ours: Tensor, stacks: Stacks) -> Tensor:
        """The same, where all ranks have the same rows; bits do not depend on the rank, so all write the same text."""
        place = self.group.rank()
        parts = list(rows.split(ours.sum(1).tolist()))
        made = stacks(parts[place], ours[place])
        out = torch.cat([made if i == place else made.new_zeros(part.shape) for i, part in enumerate(parts)])
        dist.all_reduce(out, group=self.group)
        return out


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
    """Rows in order of the rank that they go to, `leave` to each: those that `come` from each. Backward, back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, leave: list[int], come: list[int], group: ProcessGroup) -> Tensor:
        ctx.back = come, leave, group
        return _sent(rows, leave, come, group)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None]:
        return _sent(up, *ctx.back), None, None, None


def _sent(rows: Tensor, leave: list[int], come: list[int], group: ProcessGroup) -> Tensor:
    out = rows.new_empty(sum(come), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), come, leave, group=group)
    return out

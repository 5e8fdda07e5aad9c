"""A copy of the model in pieces between steps (FSDP2; Zhao et al. 2023, arXiv 2304.11277)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


def in_pieces(module: nn.Module, mesh: DeviceMesh, *, reshard: bool | None = None) -> None:
    """Leaves a rank its piece of a block, or of what stands around the blocks; gradients are summed, never averaged.
    After a forward pass it is in pieces again, if `reshard`; if None, what stands around the blocks is not.

    What is gathered together has one dtype: modules of another go by themselves, but for the head, whose weight is used
    without it being called. Gradients in bfloat16 are summed in float32.
    """
    done = {one for other in module.modules() if isinstance(other, FSDPModule) for one in other.modules()}
    kinds = {one: {p.dtype for p in one.parameters(recurse=False)} for one in module.modules() if one not in done}
    every = set[torch.dtype]().union(*kinds.values())
    head = getattr(module, "head", None)
    most = head.weight.dtype if isinstance(head, nn.Linear) else torch.bfloat16
    apart = [one for one, own in kinds.items() if len(every) > 1 and own - {most}]
    for some, own in ((apart, every - {most}), ([module], every if not apart else {most})):
        if some:
            reduce = torch.float32 if torch.bfloat16 in own else None
            made = fully_shard(
                some, mesh=mesh, reshard_after_forward=reshard, mp_policy=MixedPrecisionPolicy(reduce_dtype=reduce)
            )
            for one in cast("Sequence[FSDPModule]", made):
                one.set_gradient_divide_factor(1.0)
                one.set_force_sum_reduction_for_comms(True)  # else a factor of 1 is an operation that gloo lacks


def whole_no_more(model: nn.Module) -> None:
    """Leaves a rank its piece only."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

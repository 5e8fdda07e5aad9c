"""A copy of the model in pieces between steps (FSDP2; Zhao et al. 2023, arXiv 2304.11277).

Matrices that are kept in float32 and multiplied in bfloat16 are gathered in bfloat16: a cast before a message is that
after it, at half the bytes. And none of them is kept until the backward pass, which gathers them again: of weights in
float32 autograd would keep what autocast makes of them, the whole model in bfloat16 on every rank.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from pretrain.model.weights import Weight


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


def send_narrow(model: nn.Module, rows: Sequence[Weight]) -> None:
    """Has matrices in float32, and a head of its own, gathered in bfloat16; their gradients are float32 still.

    A message may hold several dtypes, as FSDP2 sends weights that cast themselves; there is no other way to ask for it
    than to tell each weight.
    """
    names = (
        weight.name.rpartition(".")
        for weight in rows
        if weight.group == "matrix" or (weight.name, weight.tied) == ("head.weight", None)
    )
    multiplied = {(model.get_submodule(owner), last) for owner, _, last in names}
    states = [module._get_fsdp_state() for module in model.modules() if isinstance(module, FSDPModule)]
    groups = {group for state in states if (group := state._fsdp_param_group) is not None}
    for one in (one for group in groups for one in group.fsdp_params):
        place = one._module_info.module, one._module_info.param_name
        if place in multiplied and one.sharded_param.dtype is torch.float32:
            one.init_dtype_attrs = partial(_sent, one, one.init_dtype_attrs)  # type: ignore[method-assign]
            one.init_unsharded_param = partial(_made, one, one.init_unsharded_param)  # type: ignore[method-assign]


def _sent(one: Any, settle: Callable[[MixedPrecisionPolicy], None], policy: MixedPrecisionPolicy) -> None:
    settle(policy)
    one.param_dtype = torch.bfloat16


def _made(one: Any, make: Callable[[], None]) -> None:
    make()
    one._unsharded_param.grad_dtype = torch.float32

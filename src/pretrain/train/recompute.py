"""Activations that a block makes again in the backward pass instead of keeping them (Chen et al. 2016, arXiv
1604.06174; by operation: Korthikanti et al. 2022, arXiv 2205.05198, 5). Not a bit of a gradient depends on it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from pretrain.model.ahead import every_block
from pretrain.parallel.pipeline import Elsewhere

What = Literal["none", "selective", "full", "budget"]
# Most of a block's arithmetic, and little of its memory; names that a build of torch lacks are left out.
PRODUCTS = (
    "mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "_scaled_mm", "_scaled_grouped_mm", "_flash_attention_forward",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
)  # fmt: skip


def recompute(model: nn.Module, what: What, budget: float = 0.0, most: Callable[[int], int] = lambda own: own) -> None:
    """Sets what each block of a model computes again: nothing, all but matrix products and attention, all; or all in
    the last blocks and nothing in the first, of which about `budget` bytes are kept. `most` is the largest that a rank
    says, of those that must compute alike, since blocks speak while they compute."""
    here = [block for _, block in every_block(model) if not isinstance(block, Elsewhere)]
    for layer, block in enumerate(here if what != "none" else ()):
        forward: Callable[..., Any] = block.forward
        if what == "budget":
            block.forward = Budget(block, layer, budget, most)
        elif what == "full":
            block.forward = partial(again, forward)
        else:
            block.forward = partial(again, forward, context_fn=_contexts)


def again(forward: Callable[..., Any], *given: Any, **how: Any) -> Any:
    """The same, computed again in the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*given)
    return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False, **how)


class Products(TorchDispatchMode):
    """Shows `kept`, torch's mode of a second pass, the products alone. It counts every operation and wants no more than
    in the first, but FSDP, where it gathers a part of a block by itself, does more (torchtitan's issue 3427)."""

    supports_higher_order_operators = True

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """As torch's mode does: what was compiled in the first pass is in the second."""
        return True

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _product(operation):
            return self.kept.__torch_dispatch__(operation, types, args, kwargs)
        return operation(*args, **(kwargs or {}))


class Budget:
    """A block's forward pass, kept where the budget still holds what `layer` blocks before it and this one keep."""

    def __init__(self, block: nn.Module, layer: int, budget: float, most: Callable[[int], int]) -> None:
        self.block, self.forward, self.layer, self.budget, self.most = block, block.forward, layer, budget, most
        self.bytes: dict[torch.Size, int] = {}  # of a pass, by the shape of what comes in: sequences may grow

    def __call__(self, x: Tensor, *given: Any) -> Any:
        """Measures the first pass of a shape, as blocks of a stack are alike."""
        if not torch.is_grad_enabled():
            return self.forward(x, *given)
        if x.shape not in self.bytes:
            self.bytes[x.shape] = self.most(measured(self.block, self.forward, x, *given))
        fits = self.bytes[x.shape] * (self.layer + 1) <= self.budget
        return self.forward(x, *given) if fits else again(self.forward, x, *given)


def measured(module: nn.Module, forward: Callable[..., Any], *given: Any) -> int:
    """Bytes that a forward pass keeps for its backward pass, the module's own weights not counted."""
    weights = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward(*given)
    del out
    return sum(kept.values())


def _contexts() -> tuple[Any, Any]:
    """Modes of the first pass and of the second."""
    first, second = create_selective_checkpoint_contexts(_chosen)
    return first, second if torch.compiler.is_compiling() else Products(second)


def _chosen(context: Any, operation: Any, *given: Any, **how: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if _product(operation) else CheckpointPolicy.PREFER_RECOMPUTE


def _product(operation: Any) -> bool:
    return operation.namespace == "aten" and operation.__name__.partition(".")[0] in PRODUCTS

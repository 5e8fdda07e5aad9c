"""Matrix products in narrow numbers, forward and backward, under a plain linear layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from pretrain.precision import fp8, mx

Kind = Literal["fp8", "fp8_rowwise", "mxfp8"]
Most = Callable[[Tensor], Tensor]
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@dataclass(frozen=True)
class Scaling:
    """How products are taken: the kind, whether by units of the device, and for axes that ranks divide ("in", "out") a
    function to the largest over them, in place: so that a scale is the whole tensor's."""

    kind: Kind
    native: bool = False
    most: Mapping[str, Most] = field(default_factory=dict)

    @property
    def grain(self) -> int:
        """Every dimension of a matrix is a multiple of it."""
        return mx.BLOCK if self.kind == "mxfp8" else fp8.GRAIN

    def divided(self, axis: str, most: Most) -> "Scaling":
        """The same where ranks hold parts of an axis each."""
        return replace(self, most={**self.most, axis: most})

    def product(self, a: Tensor, b: Tensor, axes: tuple[str, str], out: torch.dtype, *, gradient: bool) -> Tensor:
        """[m, n] of a [m, k] and b [n, k], whose axes are e.g. "tokens in" and "out in"; a may be a gradient."""
        short = -a.shape[1] % self.grain
        if short:  # tokens: what is added changes nothing
            a, b = pad(a, (0, short)), pad(b, (0, short))
        with torch.autocast(a.device.type, enabled=False):
            if self.kind == "mxfp8":
                return mx.product(mx.cast(a), mx.cast(b), out, native=self.native)
            first = E5M2 if gradient and self.kind == "fp8" else E4M3
            left, right = self._cast(a, axes[0], first), self._cast(b, axes[1], E4M3)
            return fp8.product(left, right, out, native=self.native, quick=not gradient)

    def _cast(self, x: Tensor, axes: str, kind: torch.dtype) -> fp8.Scaled:
        rows = self.kind == "fp8_rowwise"
        size = x.abs()
        largest = (size.amax(-1, keepdim=True) if rows else size.amax()).to(torch.promote_types(x.dtype, torch.float32))
        for axis in axes.split()[rows:]:  # a row is divided where the last axis is, a tensor where any is
            if axis in self.most:
                largest = self.most[axis](largest)
        return fp8.cast(x, fp8.scale_of(largest, kind, power=rows), kind)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scaling: Scaling) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.scaling = scaling
        return scaling.product(x, weight, ("tokens in", "out in"), x.dtype, gradient=False)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        product, (of_x, of_weight, _) = ctx.scaling.product, ctx.needs_input_grad
        back = product(up, weight.T, ("tokens out", "in out"), x.dtype, gradient=True) if of_x else None
        grad = product(up.T, x.T, ("out tokens", "in tokens"), weight.dtype, gradient=True) if of_weight else None
        return back, grad, None


def scaled_linear(x: Tensor, weight: Tensor, scaling: Scaling) -> Tensor:
    """[…, out] of x […, in] and a weight [out, in]; where no gradient is asked for, a plain product."""
    if not torch.is_grad_enabled() or not x.numel():
        return linear(x, weight)
    device = x.device.type
    x = x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
    return _Product.apply(x.flatten(0, -2), weight, scaling).unflatten(0, x.shape[:-1])


class ScaledLinear(nn.Linear):
    """A linear layer whose products are scaled; parallelism says in `scaling` which of its axes ranks divide."""

    def __init__(self, plain: nn.Linear, scaling: Scaling) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias, self.scaling = plain.weight, plain.bias, scaling

    def forward(self, x: Tensor) -> Tensor:
        """[…, out] of […, in]."""
        out = scaled_linear(x, self.weight, self.scaling)
        return out if self.bias is None else out + self.bias.to(out.dtype)


def narrow(model: nn.Module, names: Mapping[str, tuple[int, ...]], scaling: Scaling) -> list[str]:
    """Lets matrices, by name and the sizes that must be multiples of the grain, be multiplied in narrow numbers; gives
    those that stay: of other sizes, or of a module that is no linear layer and no stack with `scaled` products."""
    stay = []
    for name, sizes in names.items():
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        if any(size % scaling.grain for size in sizes):
            stay.append(name)
        elif type(module) is nn.Linear:
            above, _, own = owner.rpartition(".")
            setattr(model.get_submodule(above), own, ScaledLinear(module, scaling))
        elif isinstance(stacks := getattr(module, "scaled", None), dict):
            stacks[last] = scaling
        else:
            stay.append(name)
    return stay

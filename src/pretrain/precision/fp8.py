"""float8: numbers of eight bits beside a scale (Micikevicius et al. 2022, arXiv 2209.05433; OCP 8-bit floating point
specification, OFP8, revision 1.0).

A scale is what a tensor, or each of its rows, is multiplied by so that its largest number becomes the format's largest.
As in torchao's recipes: `fp8` has a scale a tensor, gradients in e5m2; `fp8_rowwise` one a row along the contraction,
rounded down to a power of two, e4m3 everywhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LEAST = 1e-12  # what a tensor's largest number counts as if it is smaller
GRAIN = 16  # of every dimension of a matrix that the units multiply


class Scaled(NamedTuple):
    """Numbers [rows, k] in float8 that were multiplied by `scale`, [] or [rows, 1], float32."""

    values: Tensor
    scale: Tensor


def scale_of(largest: Tensor, kind: torch.dtype, *, power: bool) -> Tensor:
    """What makes `largest` the format's largest number; float32, rounded down to a power of two with `power`."""
    scale = (torch.finfo(kind).max / largest.double().clamp_min(LEAST)).float()
    return (scale.view(torch.int32) & 0x7F800000).view(torch.float32) if power else scale


def cast(x: Tensor, scale: Tensor, kind: torch.dtype) -> Scaled:
    """x · scale, rounded to nearest, ties to even; what is too large becomes the largest."""
    most = torch.finfo(kind).max  # torch 2.11 turns what is too large into NaN
    return Scaled((x.float() * scale).clamp(-most, most).to(kind), scale)


def product(a: Scaled, b: Scaled, out: torch.dtype, *, native: bool, quick: bool) -> Tensor:
    """[m, n] of a [m, k] and b [n, k]; emulated, of the same numbers in float32 or wider, where there are no units.

    Units may sum in fewer bits (`quick`: they are let to; DeepSeek-AI 2024, arXiv 2412.19437, 3.3.2, found 14), so that
    a result may differ from the emulated one by 2^-12 of Σ|a·b| beside one rounding to bfloat16.
    """
    back_a, back_b = a.scale.reciprocal(), b.scale.reciprocal().t()
    if not native:
        wide = torch.promote_types(out, torch.float32)
        return (a.values.to(wide) @ b.values.to(wide).t() * back_a * back_b).to(out)
    left, right = a.values.contiguous(), b.values.contiguous().t()
    if a.scale.dim() and quick:  # with scales of rows, units sum in fewer bits and give bfloat16, and nothing else
        return torch._scaled_mm(
            left, right, scale_a=back_a, scale_b=back_b.contiguous(), out_dtype=torch.bfloat16, use_fast_accum=True
        ).to(out)
    if a.scale.dim():
        one = torch.ones((), device=left.device)
        made = torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.float32)
        return (made * back_a * back_b).to(out)
    return torch._scaled_mm(left, right, scale_a=back_a, scale_b=back_b, out_dtype=out, use_fast_accum=quick)


def native(device: str) -> bool:
    """Whether a device has units for it: CUDA from 8.9 on."""
    return device == "cuda" and torch.cuda.get_device_capability() >= (8, 9)

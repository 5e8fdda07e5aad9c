"""MXFP8: blocks of 32 numbers in e4m3 along the contraction, each with a power of two in eight bits, e8m0 (OCP
microscaling formats specification, MX, version 1.0, sections 5 and 6.3; Rouhani et al. 2023, arXiv 2310.10537)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 32
KIND = torch.float8_e4m3fn
LARGEST_POWER, LARGEST = 8, 448.0  # of e4m3: its largest power of two is 2^8
BIAS, MEANINGLESS = 127, 255  # of e8m0: a code c is 2^(c - 127), 255 is not a number


class Blocks(NamedTuple):
    """Numbers [rows, k] in e4m3 and the codes [rows, k / 32] of the powers of two that they are to be multiplied by."""

    values: Tensor
    codes: Tensor


def cast(x: Tensor) -> Blocks:
    """x [rows, k] by blocks: a block's power is that of its largest number over the format's largest power of two;
    numbers are rounded to nearest, ties to even, and what is too large becomes the largest."""
    parts = x.float().unflatten(-1, (-1, BLOCK))
    largest = parts.abs().amax(-1, keepdim=True)
    exponent = (largest.view(torch.int32) >> 23) - BIAS  # -127 of zero and of what is less than any power that there is
    power = (exponent - LARGEST_POWER).clamp_min(-BIAS)
    scaled = (parts * ((BIAS - power) << 23).view(torch.float32)).clamp(-LARGEST, LARGEST)
    codes = torch.where(largest.isfinite(), power + BIAS, MEANINGLESS).to(torch.uint8)
    return Blocks(scaled.to(KIND).flatten(-2), codes.squeeze(-1))


def value(blocks: Blocks, kind: torch.dtype) -> Tensor:
    """The numbers that blocks stand for, [rows, k]."""
    return (blocks.values.to(kind).unflatten(-1, (-1, BLOCK)) * powers(blocks.codes).to(kind)[..., None]).flatten(-2)


def powers(codes: Tensor) -> Tensor:
    """What codes stand for, float32: 2^(code - 127), that of 0 below the normal numbers, that of 255 NaN."""
    word = codes.int() << 23
    return torch.where((codes == 0) | (codes == MEANINGLESS), word | 0x400000, word).view(torch.float32)


def product(a: Blocks, b: Blocks, out: torch.dtype, *, native: bool) -> Tensor:
    """[m, n] of a [m, k] and b [n, k]; emulated, of the same numbers in float32 or wider, where there are no units."""
    if not native:
        wide = torch.promote_types(out, torch.float32)
        return (value(a, wide) @ value(b, wide).T).to(out)
    scales = (tiled(part.codes).view(torch.float8_e8m0fnu) for part in (a, b))
    left, right = a.values.contiguous(), b.values.contiguous()
    return torch._scaled_mm(left, right.T, scale_a=next(scales), scale_b=next(scales), out_dtype=torch.bfloat16).to(out)


def tiled(codes: Tensor) -> Tensor:
    """Codes [rows, blocks] as units read them: padded to tiles of 128 x 4 codes, tile after tile; in a tile, code c of
    row 32 i + j is byte 16 j + 4 i + c (cuBLAS, layout of scaling factors of 1D blocks)."""
    rows, blocks = codes.shape
    whole = pad(codes, (0, -blocks % 4, 0, -rows % 128))
    return whole.unflatten(0, (-1, 4, 32)).unflatten(-1, (-1, 4)).permute(0, 3, 2, 1, 4).flatten()


def native(device: str) -> bool:
    """Whether a device has units for it: CUDA from 10.0 on."""
    return device == "cuda" and torch.cuda.get_device_capability() >= (10, 0)

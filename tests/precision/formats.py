"""float8 written out from its specification: every code's number as a fraction, and the nearest code by search."""

from fractions import Fraction

import torch
from torch import Tensor

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def table(kind: torch.dtype) -> list[Fraction | None]:
    """Of codes 0 to 255, None where a code is no finite number (OFP8 1.0, tables 1 and 2)."""
    fraction, bias = (3, 7) if kind is E4M3 else (2, 15)
    out: list[Fraction | None] = []
    for code in range(256):
        exponent, mantissa = (code & 127) >> fraction, code & (2**fraction - 1)
        top = (1 << (7 - fraction)) - 1
        special = exponent == top and (kind is E5M2 or mantissa == 2**fraction - 1)
        lead = 1 if exponent else 0
        size = (lead + Fraction(mantissa, 2**fraction)) * Fraction(2) ** (max(exponent, 1) - bias)
        out.append(None if special else -size if code > 127 else size)
    return out


def nearest(x: float, kind: torch.dtype) -> Fraction:
    """The number nearest to x, of two as near that with an even code, the largest for what is beyond it."""
    finite = [(code, value) for code, value in enumerate(table(kind)) if value is not None]
    best = min(finite, key=lambda one: (abs(one[1] - Fraction(x)), one[0] % 2))
    return best[1]


def all_nearest(x: Tensor, kind: torch.dtype) -> Tensor:
    """The same of every number of a tensor, in float64: where all differences are exact."""
    finite = [(float(value), code) for code, value in enumerate(table(kind)) if value is not None]
    finite.sort(key=lambda one: one[1] % 2)  # of two as near, the even one is found first
    values = torch.tensor([value for value, _ in finite], dtype=torch.float64)
    return values[(x.double().flatten()[:, None] - values).abs().argmin(-1)].view(x.shape)

"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis, or · (1 + weight) with `unit_offset`.

    `reduce` is the seam where tensor parallelism averages the mean square of a sharded axis.
    """

    def __init__(self, width: int, eps: float, *, unit_offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if unit_offset else torch.ones(width))
        self.eps, self.unit_offset = eps, unit_offset
        self.reduce: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[…, width] like x."""
        weight = 1 + self.weight if self.unit_offset else self.weight
        if self.reduce is None:
            return rms_norm(x, weight.shape, weight, self.eps)
        mean = self.reduce(x.square().mean(-1, keepdim=True))
        return x * torch.rsqrt(mean + self.eps) * weight

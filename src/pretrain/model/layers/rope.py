"""Rotary positions (Su et al. 2021, arXiv 2104.09864), with Llama 3's stretching of the slow frequencies."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's rule (Dubey et al. 2024; published in its reference code): the keys of config.json."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    rope_type: str = "llama3"

    def __post_init__(self) -> None:
        if self.rope_type != "llama3":
            raise ValueError(f"rope_type {self.rope_type!r} is not known; expected llama3")

    def stretch(self, frequencies: Tensor) -> Tensor:
        """Long waves are slowed by `factor`, short ones kept, those between mixed."""
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = kept.clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Radians a position, float32 [head_dim / 2]."""
    plain = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    return plain if scaling is None else scaling.stretch(plain)


def angles(positions: Tensor, frequency: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin [batch, 1, seq, head_dim], the two halves alike, of positions [batch, seq]."""
    turn = positions[:, None, :, None].to(torch.float32) * frequency
    turn = torch.cat([turn, turn], -1)
    return turn.cos().to(dtype), turn.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim] turned by position; pairs are (i, i + head_dim / 2), as in published files."""
    one, other = x.chunk(2, -1)
    return x * cos + torch.cat([-other, one], -1) * sin

"""Stochastic rounding to bfloat16: up or down by chance, so that the mean is the number itself (Gupta et al. 2015,
arXiv 1502.02551). Small updates are then taken now and then, where rounding to nearest would lose all of them.

Chance is a function of seed, step, name and place: splitmix64 as in `base.random`, here in torch's signed words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.base.random import key

Places = Callable[[str, Tensor], Tensor]
STRIDE = 0xD1342543DE82EF95  # of counters, as in `base.random.uniform`
FIELDS = 4  # of 16 bits in a word


def bits(word: int, places: Tensor) -> Tensor:
    """64 random bits of each place, int64: those of splitmix(splitmix(word) + place · STRIDE)."""
    start = _splitmix(torch.tensor(_signed(word), device=places.device))
    return _splitmix(start + places * _signed(STRIDE))


def _splitmix(x: Tensor) -> Tensor:
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right, zeros coming in."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word


def rounded(x: Tensor, chance: Tensor) -> Tensor:
    """float32 to bfloat16; `chance` are whole numbers whose last 16 bits are random. What bfloat16 holds stays."""
    raw = x.view(torch.int32) + (chance & 0xFFFF).to(torch.int32)
    near = (raw & -0x10000).view(torch.float32).to(torch.bfloat16)
    return torch.where(x.isfinite(), near, x.to(torch.bfloat16))


def in_order(name: str, own: Tensor) -> Tensor:
    """The places of a tensor that is whole."""
    return torch.arange(own.numel(), device=own.device).view(own.shape)


@dataclass(frozen=True)
class Rounding:
    """The chance of a run; `places` are the numbers of a piece's elements in the whole tensor, set where ranks hold
    pieces, so that no layout changes a bit."""

    seed: int = 0
    places: Places = in_order

    def store(self, step: int, name: str, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Writes up to four float32 tensors of one weight into those in bfloat16 that they come from."""
        assert len(pairs) <= FIELDS
        chance = bits(key(self.seed, "round", step, name), self.places(name, pairs[0][0]))
        for number, (into, value) in enumerate(pairs):
            into.copy_(rounded(value, chance >> (16 * number)))


UNSEEDED = Rounding()

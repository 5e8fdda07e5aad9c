"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) with rotary positions."""

from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.attention.entrance import Exchange, attention
from pretrain.attention.mask import Window, narrow
from pretrain.model.decoder import Where
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import rotate


class GroupedAttention(nn.Module):
    """`heads` queries share `kv_heads` keys and values of `head_dim` each.

    `fused` holds q, k and v as one matrix `qkv`; `norm` norms queries and keys before they are turned, by head or over
    "all" heads at once; `rotary` is the number of the stack's rotary table, None for no turn; `window` is what this
    layer sees of what all see; `exchange` the seam of ranks that have a part of a sequence each.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        bias: bool = False,
        out_bias: bool = False,
        fused: bool = False,
        norm: Literal["head", "all"] | None = None,
        eps: float = 1e-6,
        unit_offset: bool = False,
        rotary: int | None = 0,
        window: Window | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim, self.norm, self.rotary, self.window = head_dim, norm, rotary, window
        self.scale, self.softcap = scale, softcap
        sizes = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
        if fused:
            self.sizes = sizes
            self.qkv = nn.Linear(width, sum(sizes), bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(width, size, bias=bias) for size in sizes)
        if norm is not None:
            self.q_norm, self.k_norm = (
                RMSNorm(head_dim if norm == "head" else size, eps, unit_offset=unit_offset) for size in sizes[:2]
            )
        self.sinks = nn.Parameter(torch.zeros(heads)) if sinks else None
        self.out = nn.Linear(heads * head_dim, width, bias=out_bias)
        self.fused = fused
        self.exchange: Exchange | None = None

    def forward(self, x: Tensor, where: Where) -> Tensor:
        """[batch, seq, width] like x."""
        q, k, v = self.parts(self.qkv(x)) if self.fused else (self.q(x), self.k(x), self.v(x))
        if self.norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in (q, k, v))
        if self.norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            turn = where.turns[self.rotary]
            q, k = rotate(q, *turn).to(v.dtype), rotate(k, *turn).to(v.dtype)
        if where.cache is not None:
            k, v = where.cache.extend(self, k, v, keep=None if self.window is None else self.window.before)
        mask = narrow(where.mask, self.window)
        out = attention(
            q, k, v, mask=mask, scale=self.scale, softcap=self.softcap, sinks=self.sinks, exchange=self.exchange
        )
        return self.out(out.transpose(1, 2).flatten(2))

    def parts(self, fused: Tensor) -> tuple[Tensor, ...]:
        """q, k and v; where ranks share the heads, fewer of each."""
        return fused.split([size * fused.shape[-1] // sum(self.sizes) for size in self.sizes], -1)

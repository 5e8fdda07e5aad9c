"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) with rotary positions."""

from torch import Tensor, nn

from pretrain.attention.entrance import attention
from pretrain.model.decoder import Where
from pretrain.model.layers.rope import rotate


class GroupedAttention(nn.Module):
    """`heads` queries share `kv_heads` keys and values of `head_dim` each."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q = nn.Linear(width, heads * head_dim, bias=False)
        self.k = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width, bias=False)

    def forward(self, x: Tensor, where: Where) -> Tensor:
        """[batch, seq, width] like x."""
        q, k, v = (part(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = rotate(q, where.cos, where.sin).to(v.dtype), rotate(k, where.cos, where.sin).to(v.dtype)
        if where.cache is not None:
            k, v = where.cache.extend(self, k, v)
        return self.out(attention(q, k, v, mask=where.mask).transpose(1, 2).flatten(2))

"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, arXiv 2405.04434, 2.1): keys and values of all heads are
made of one narrow latent, which is all that a cache keeps, beside one rotary key that the heads share."""

import torch
from torch import Tensor, nn

from pretrain.attention.entrance import Exchange, attention
from pretrain.model.decoder import Where
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import rotate


class LatentAttention(nn.Module):
    """`heads` of queries and keys, each `plain` features without position before `turned` ones with, and of values
    `value` wide.

    Keys and values come from a latent of `kv_rank`, queries from one of `q_rank`, or straight from the stream if None.
    Pairs that turn are neighbours if `interleaved`. `scale` is 1 / √(plain + turned), if not said. `exchange` is the
    seam of ranks that have a part of a sequence each: they trade the latent, which is narrower than what it makes.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        q_rank: int | None,
        kv_rank: int,
        plain: int,
        turned: int,
        value: int,
        interleaved: bool = True,
        scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.plain, self.turned, self.value, self.kv_rank = plain, turned, value, kv_rank
        self.interleaved, self.scale = interleaved, (plain + turned) ** -0.5 if scale is None else scale
        if q_rank is None:
            self.q = nn.Linear(width, heads * (plain + turned), bias=False)
        else:
            self.q_down = nn.Linear(width, q_rank, bias=False)
            self.q_norm = RMSNorm(q_rank, eps)
            self.q_up = nn.Linear(q_rank, heads * (plain + turned), bias=False)
        self.straight = q_rank is None
        self.kv_down = nn.Linear(width, kv_rank + turned, bias=False)
        self.kv_norm = RMSNorm(kv_rank, eps)
        self.kv_up = nn.Linear(kv_rank, heads * (plain + value), bias=False)
        self.out = nn.Linear(heads * value, width, bias=False)
        self.exchange: Exchange | None = None

    def forward(self, x: Tensor, where: Where) -> Tensor:
        """[batch, seq, width] like x."""
        q = self.q(x) if self.straight else self.q_up(self.q_norm(self.q_down(x)))
        q, q_turned = self._heads(q, self.plain + self.turned).split([self.plain, self.turned], -1)
        latent, k_turned = self.kv_down(x)[:, None].split([self.kv_rank, self.turned], -1)
        latent = self.kv_norm(latent)
        q_turned, k_turned = (
            rotate(part, *where.turns[0], interleaved=self.interleaved).to(latent.dtype)
            for part in (q_turned, k_turned)
        )
        if where.cache is not None:
            latent, k_turned = where.cache.extend(self, latent, k_turned)
            if x.shape[1] == 1:
                return self._of_latent(q, q_turned, latent, k_turned, where)
        if self.exchange is not None:
            latent, k_turned = self.exchange.whole(latent, k_turned)
        k, v = self._heads(self.kv_up(latent[:, 0]), self.plain + self.value).split([self.plain, self.value], -1)
        q = torch.cat([q.to(v.dtype), q_turned.to(v.dtype)], -1)
        k = torch.cat([k, k_turned.to(v.dtype).expand(-1, k.shape[1], -1, -1)], -1)
        out = attention(q, k, v, mask=where.mask, scale=self.scale, exchange=self.exchange)
        return self.out(out.transpose(1, 2).flatten(2))

    def _of_latent(self, q: Tensor, q_turned: Tensor, latent: Tensor, k_turned: Tensor, where: Where) -> Tensor:
        """The same for few queries, whose keys and values are never made: what makes them goes to queries and results
        instead, and the latent is key and value of all heads (2.1.2)."""
        up = self.kv_up.weight.to(latent.dtype).unflatten(0, (-1, self.plain + self.value))
        k_up, v_up = up.split([self.plain, self.value], 1)
        q = torch.cat([q.to(latent.dtype) @ k_up, q_turned], -1)
        out = attention(q, torch.cat([latent, k_turned], -1), latent, mask=where.mask, scale=self.scale) @ v_up.mT
        return self.out(out.transpose(1, 2).flatten(2))

    @staticmethod
    def _heads(x: Tensor, width: int) -> Tensor:
        """[batch, heads, seq, width] of features [batch, seq, heads · width]."""
        return x.unflatten(-1, (-1, width)).transpose(1, 2)

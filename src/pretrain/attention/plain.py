"""Attention as the formula says it (Vaswani et al. 2017, arXiv 1706.03762, 3.2.1): the truth for every backend."""

import torch
from torch import Tensor

from pretrain.attention.mask import Documents, Full, Mask, Prefix, reach


def visible(mask: Mask, queries: int, keys: int, device: torch.device) -> Tensor | None:
    """[queries, keys] or [batch, 1, queries, keys], true where a query sees a key; None where it sees all."""
    q = torch.arange(keys - queries, keys, device=device)[:, None]
    k = torch.arange(keys, device=device)[None, :]
    if isinstance(mask, Full):
        return None
    if isinstance(mask, Prefix):
        return (k <= q) | (k < mask.lengths[:, None, None, None])
    if isinstance(mask, Documents):
        same = mask.ids[:, None, -queries:, None] == mask.ids[:, None, None, :]
        inside = visible(mask.inside, queries, keys, device)
        return same if inside is None else same & inside
    return band(q, k, reach(mask))


def band(q: Tensor, k: Tensor, bounds: tuple[int | None, int | None]) -> Tensor:
    """True where key k is at most so many before and so many after query q."""
    before, after = bounds
    seen = torch.ones_like(q >= k)
    if before is not None:
        seen = seen & (q - k <= before)
    return seen if after is None else seen & (k - q <= after)


def plain(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """softmax(cap(q kᵀ · scale) + mask) v: [batch, heads, seq, head_dim] of q, and of k, v with kv_heads.

    The cap is c · tanh(score / c) (Gemma team 2024, arXiv 2408.00118, 2). `sinks` [heads] are scores of a key that all
    see and whose value is zero (Xiao et al. 2023, arXiv 2309.17453; learned as in gpt-oss).
    """
    seen = visible(mask, q.shape[2], k.shape[2], q.device)
    return weigh(q, k, v, seen, scale, softcap, sinks)


def weigh(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """The formula for queries and keys of which `seen` says who sees whom."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        column = sinks[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column.to(scores.dtype)], -1)
    share = torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return share[..., : k.shape[2]] @ v

"""Attention as the formula says it (Vaswani et al. 2017, arXiv 1706.03762, 3.2.1): the truth for every backend."""

import torch
from torch import Tensor

from pretrain.attention.mask import Documents, Full, Mask


def visible(mask: Mask, queries: int, keys: int, device: torch.device) -> Tensor | None:
    """[queries, keys] or [batch, 1, queries, keys], true where a query sees a key; None where it sees all."""
    if isinstance(mask, Full):
        return None
    q = torch.arange(keys - queries, keys, device=device)[:, None]
    before = torch.arange(keys, device=device)[None, :] <= q
    if not isinstance(mask, Documents):
        return before
    same = mask.ids[:, None, -queries:, None] == mask.ids[:, None, None, :]
    return same & before if mask.causal else same


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None) -> Tensor:
    """softmax(cap(q kᵀ · scale) + mask) v: [batch, heads, seq, head_dim] of q, and of k, v with kv_heads."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    seen = visible(mask, q.shape[2], k.shape[2], q.device)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype) @ v

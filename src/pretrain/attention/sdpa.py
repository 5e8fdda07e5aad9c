"""Attention by torch's fused kernels, never with a [seq, seq] mask: documents go one by one."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pretrain.attention.mask import Documents, Full, Mask


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> Tensor:
    """As `plain` without a soft cap; memory grows with the sequence, not with its square."""
    if isinstance(mask, Documents):
        return _by_document(q, k, v, mask, scale)
    grouped = q.shape[1] != k.shape[1]
    if isinstance(mask, Full) or q.shape[2] == 1:
        return scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=grouped)
    if q.shape[2] == k.shape[2]:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    first = k.shape[2] - q.shape[2]  # a prompt after a cache: the queries are few
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(first)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=grouped)


def _by_document(q: Tensor, k: Tensor, v: Tensor, mask: Documents, scale: float) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    rows = []
    for row, ids in enumerate(mask.ids):
        parts, start = [], 0
        for length in torch.unique_consecutive(ids, return_counts=True)[1].tolist():
            part = (slice(row, row + 1), slice(None), slice(start, start + length))
            one = (q[part], k[part], v[part])
            parts.append(scaled_dot_product_attention(*one, is_causal=mask.causal, scale=scale, enable_gqa=grouped))
            start += length
        rows.append(torch.cat(parts, 2))
    return torch.cat(rows)

"""FlashAttention 2 and 3, where they are installed (Dao 2023, arXiv 2307.08691; Shah et al. 2024, arXiv 2407.08608).

All rows go in as one, documents one after another with their bounds, so that a row of many costs one call.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from pretrain.attention.mask import Documents, Mask, Prefix, latest, reach

try:
    from flash_attn_interface import flash_attn_varlen_func as kernel  # 3: Hopper
except ImportError:
    try:
        from flash_attn import flash_attn_varlen_func as kernel
    except ImportError:
        kernel = None


def suits(q: Tensor, k: Tensor, v: Tensor, mask: Mask, sinks: Tensor | None) -> bool:
    """Whether the kernel is here and computes this: 16-bit heads of one width up to 256, no prefix, no sinks."""
    if kernel is None or sinks is not None or isinstance(mask, Prefix):
        return False
    one_width = q.shape[-1] == v.shape[-1] <= 256 and q.shape[-1] % 8 == 0
    return one_width and q.dtype in (torch.float16, torch.bfloat16)


def flash(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None = None) -> Tensor:
    """As `plain`; memory grows with the sequence."""
    assert not isinstance(mask, Prefix), "`suits` said no"
    rows, _, queries, _ = q.shape
    if isinstance(mask, Documents):
        every = mask.counted()
        lengths = [n for row in every for n in latest(row, queries)], [n for row in every for n in row]
        inside = mask.inside
    else:
        lengths, inside = ([queries] * rows, [k.shape[2]] * rows), mask
    before, after = reach(inside)
    one_by_one = (part.transpose(1, 2).flatten(0, 1) for part in (q, k, v))
    found = kernel(
        *one_by_one,
        cu_seqlens_q=_bounds(lengths[0], q.device),
        cu_seqlens_k=_bounds(lengths[1], q.device),
        max_seqlen_q=max(lengths[0]),
        max_seqlen_k=max(lengths[1]),
        softmax_scale=scale,
        window_size=tuple(-1 if bound is None else bound for bound in (before, after)),
        softcap=softcap or 0.0,
    )
    out = found[0] if isinstance(found, tuple) else found  # 3 also hands back the sums of weights
    return out.unflatten(0, (rows, queries)).transpose(1, 2)


def _bounds(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where each begins, and the end, int32."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)

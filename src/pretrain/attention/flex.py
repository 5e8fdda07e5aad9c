"""FlexAttention (Dong et al. 2024, arXiv 2412.05496): one compiled kernel, told block by block who sees whom.

The blocks that are seen whole, in part and not at all are reckoned from the bounds of each, so that no [seq, seq] mask
is ever made. A sink takes its share of the weights after the kernel, from the logarithm of their sum.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, reach

BLOCK = 128  # queries, and keys

Seen = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of row, head, query and key: whether it is seen


def flex(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """As `plain`; memory grows with the sequence, beside two numbers for each pair of blocks. No backward on a CPU."""
    kernel = torch.compile(flex_attention)  # torch keeps what it compiled, for each shape and kind of mask
    who = blocks(mask, q.shape[2], k.shape[2], q.device)
    aux = None if sinks is None else AuxRequest(lse=True)
    out = kernel(
        q, k, v, score_mod=_bent(softcap), block_mask=who, scale=scale, enable_gqa=q.shape[1] != k.shape[1],
        return_aux=aux,  # type: ignore[arg-type]
    )  # fmt: skip
    if sinks is None:
        return out
    out, sums = out
    return out * torch.sigmoid(sums.lse - sinks[:, None]).to(out.dtype)[..., None]


def _bent(softcap: float | None) -> Callable[..., Tensor] | None:
    if softcap is None:
        return None
    return lambda score, row, head, query, key: softcap * torch.tanh(score / softcap)


def blocks(mask: Mask, queries: int, keys: int, device: torch.device) -> BlockMask:
    """The blocks of keys that a block of queries sees whole or in part; fewer queries than keys are the last ones."""
    q = _bounds(queries, keys - queries, device)
    k = _bounds(keys, 0, device)
    some, whole = _seen(mask, (q[0][:, None], q[1][:, None]), k)
    ragged = torch.zeros_like(whole)
    ragged[..., -1, :] |= queries % BLOCK != 0
    ragged[..., :, -1] |= keys % BLOCK != 0
    whole = whole & ~ragged
    part, whole = (one if one.dim() == 3 else one[None] for one in (some & ~whole, whole))
    return BlockMask.from_kv_blocks(
        *_listed(part[:, None]), *_listed(whole[:, None]), BLOCK_SIZE=BLOCK,
        mask_mod=_pairs(mask, keys - queries), seq_lengths=(queries, keys),
    )  # fmt: skip


def _bounds(length: int, first: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and last place of each block, [blocks]."""
    starts = torch.arange(0, length, BLOCK, device=device)
    return starts + first, (starts + (BLOCK - 1)).clamp_max(length - 1) + first


def _seen(mask: Mask, q: tuple[Tensor, Tensor], k: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Whether some pair and whether every pair of two blocks may see each other, [query blocks, key blocks] or with a
    row's axis before; `some` may be said of a few that see nothing, since each pair is looked at again."""
    if isinstance(mask, Documents):
        some, whole = _seen(mask.inside, q, k)
        (a, b), (c, d) = ([mask.ids[:, end] for end in q], [mask.ids[:, None, end] for end in k])
        return some & (a <= d) & (c <= b), whole & (a == b) & (b == c) & (c == d)
    if isinstance(mask, Prefix):
        lengths = mask.lengths[:, None, None]
        return (k[0] <= q[1]) | (k[0] < lengths), (k[1] <= q[0]) | (k[1] < lengths)
    before, after = reach(mask)
    some = whole = torch.ones_like(q[0] >= k[0])
    if before is not None:
        some, whole = some & (q[0] - k[1] <= before), whole & (q[1] - k[0] <= before)
    if after is not None:
        some, whole = some & (k[0] - q[1] <= after), whole & (k[1] - q[0] <= after)
    return some, whole


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys are chosen, and their numbers before those of the others, int32."""
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.to(torch.int32).contiguous()


def _pairs(mask: Mask, first: int) -> Seen | None:
    """The rule for pairs inside a block; query 0 stands at `first` among the keys."""
    if isinstance(mask, Full):
        return None
    if isinstance(mask, Prefix):
        lengths = mask.lengths
        return lambda row, head, query, key: (key <= query + first) | (key < lengths[row])
    if isinstance(mask, Documents):
        ids, inside = mask.ids, _pairs(mask.inside, first)
        if inside is None:
            return lambda row, head, query, key: ids[row, query + first] == ids[row, key]
        return lambda row, head, query, key: (ids[row, query + first] == ids[row, key]) & inside(row, head, query, key)
    if isinstance(mask, Causal):
        return lambda row, head, query, key: key <= query + first
    before, after = mask.before, mask.after
    return lambda row, head, query, key: (query + first - key <= before) & (key - query - first <= after)

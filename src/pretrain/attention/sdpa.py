"""Attention by torch's fused kernels, never with a [seq, seq] mask.

Documents go one by one. A window goes by blocks of queries, each against the keys that it reaches; all blocks inside
share one small mask. A prefix is full attention for its own queries and causal attention for the rest. A sink is a
first key whose score comes from one more feature; causal sequences get a first query too, so that both stay aligned.
A soft cap is no kernel's: its blocks follow the formula and are computed again in the backward pass. On a CPU, causal
queries that come after other keys go over those and over their own apart, and both results are merged by the sums of
their weights (Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135, 3.1).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window, latest, reach
from pretrain.attention.plain import band, weigh

BLOCK = 256  # queries
FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """As `plain`; memory grows with the sequence, not with its square."""
    one = _Kernel(scale, softcap, sinks)
    if isinstance(mask, Documents):
        return _by_document(one, q, k, v, mask)
    if isinstance(mask, Prefix):
        return _prefix(one, q, k, v, mask)
    return one.attend(q, k, v, mask)


def _by_document(one: "_Kernel", q: Tensor, k: Tensor, v: Tensor, mask: Documents) -> Tensor:
    rows = []
    for row, lengths in enumerate(mask.counted()):
        qs = q[row : row + 1].split(latest(lengths, q.shape[2]), 2)
        ks, vs = (tensor[row : row + 1].split(list(lengths), 2) for tensor in (k, v))
        parts = [one.attend(q, k, v, mask.inside) for q, k, v in zip(qs, ks, vs, strict=True) if q.shape[2]]
        rows.append(torch.cat(parts, 2))
    return torch.cat(rows)


def _prefix(one: "_Kernel", q: Tensor, k: Tensor, v: Tensor, mask: Prefix) -> Tensor:
    rows = []
    for row, length in enumerate(mask.lengths.tolist()):
        here = slice(row, row + 1), slice(None)
        ahead = (*here, slice(length))
        whole = one.attend(q[here], k[here], v[here], Causal())
        first = one.attend(q[ahead], k[ahead], v[ahead], Full())
        rows.append(torch.cat([first, whole[:, :, length:]], 2))
    return torch.cat(rows)


@dataclass
class _Kernel:
    """Attention of one sequence's queries over its keys; where the queries are fewer, they are the last ones."""

    scale: float
    softcap: float | None
    sinks: Tensor | None
    masks: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Full | Causal | Window) -> Tensor:
        before, after = reach(mask)
        longest = k.shape[2] - 1
        if before is not None and before >= longest:
            before = None
        if after is not None and after >= longest:
            after = None
        everything = before is None and (after is None or (after == 0 and q.shape[2] == 1))
        square = before is None and after == 0 and q.shape[2] == k.shape[2]
        if self.softcap is None and (everything or square):
            return self.fused(q, k, v, causal=not everything)
        merges = q.device.type == "cpu" and v.shape[-1] <= q.shape[-1]
        if self.softcap is None and before is None and after == 0 and merges:
            return self.after(q, k, v)
        return self.by_blocks(q, k, v, (before, after))

    def after(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal queries, each over all keys before the first of them as well."""
        first, wide = k.shape[2] - q.shape[2], v.shape[-1]
        if self.sinks is not None:
            q, k, v = self.sunk(q, k, v)
            first += 1
        return _After.apply(q, k, _padded(v, q), first, self.scale)[..., :wide]

    def by_blocks(self, q: Tensor, k: Tensor, v: Tensor, bounds: tuple[int | None, int | None]) -> Tensor:
        """Blocks of queries, each against the keys that it reaches."""
        before, after = bounds
        keys, first, parts = k.shape[2], k.shape[2] - q.shape[2], []
        for start in range(0, q.shape[2], BLOCK):
            block = q[:, :, start : start + BLOCK]
            place = first + start  # of the block's first query among the keys
            low = 0 if before is None else max(place - before, 0)
            high = keys if after is None else min(place + block.shape[2] + after, keys)
            seen = self.seen(block.shape[2], low - place, high - place, bounds, q.device)
            near = k[:, :, low:high], v[:, :, low:high]
            if self.softcap is None:
                parts.append(self.fused(block, *near, seen=seen))
            elif q.shape[2] <= BLOCK:
                parts.append(weigh(block, *near, seen, self.scale, self.softcap, self.sinks))
            else:
                rest = (seen, self.scale, self.softcap, self.sinks)
                parts.append(checkpoint(weigh, block, *near, *rest, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(parts, 2)

    def seen(
        self, queries: int, low: int, high: int, bounds: tuple[int | None, int | None], device: torch.device
    ) -> Tensor:
        """[queries, keys] of a block whose keys go from `low` to `high`, counted from its first query."""
        place = (queries, low, high, bounds)
        if place not in self.masks:
            q, k = torch.arange(queries, device=device)[:, None], torch.arange(low, high, device=device)[None, :]
            self.masks[place] = band(q, k, bounds)
        return self.masks[place]

    def fused(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, seen: Tensor | None = None) -> Tensor:
        """One kernel's call."""
        wide, grouped = v.shape[-1], q.shape[1] != k.shape[1]
        if self.sinks is not None:
            q, k, v = self.sunk(q, k, v)
            q = pad(q, (0, 0, 1, 0)) if causal else q
            seen = None if seen is None else pad(seen, (1, 0), value=True)
        out = scaled_dot_product_attention(
            q, k, _padded(v, q), attn_mask=seen, is_causal=causal, scale=self.scale, enable_gqa=grouped
        )
        return out[:, :, 1:, :wide] if self.sinks is not None and causal else out[..., :wide]

    def sunk(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same with the sink as a first key, whose score is of one more feature."""
        assert self.sinks is not None
        column = (self.sinks / self.scale)[None, :, None, None].expand(*q.shape[:3], 1).to(q.dtype)
        q = torch.cat([q, column], -1)
        k, v = pad(k, (0, 1, 1, 0)), pad(v, (0, 0, 1, 0))
        return q, torch.cat([_sink_key(k), k[:, :, 1:]], 2), v


class _After(torch.autograd.Function):
    """Causal attention of the last queries: over the `first` keys, over their own, and the two merged."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, first: int, scale: float) -> Tensor:
        (early, one), (late, two) = (
            FORWARD(q, k[:, :, keys], v[:, :, keys], 0.0, causal, scale=scale) for keys, causal in _apart(first)
        )
        sums = torch.logaddexp(one, two)
        out = early * (one - sums).exp()[..., None] + late * (two - sums).exp()[..., None]
        out = out.to(v.dtype)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.first, ctx.scale = first, scale
        return out

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        (q1, k1, v1), (q2, k2, v2) = (  # with the sums of all weights, each part's gradients are those of the whole
            BACKWARD(up, q, k[:, :, keys], v[:, :, keys], out, sums, 0.0, causal, scale=ctx.scale)
            for keys, causal in _apart(ctx.first)
        )
        return q1 + q2, torch.cat([k1, k2], 2), torch.cat([v1, v2], 2), None, None


def _apart(first: int) -> tuple[tuple[slice, bool], tuple[slice, bool]]:
    """(keys, whether causal) of the two parts."""
    return (slice(first), False), (slice(first, None), True)


def _padded(v: Tensor, q: Tensor) -> Tensor:
    """Values as wide as queries: kernels want one width, and would hold all scores without."""
    return pad(v, (0, q.shape[-1] - v.shape[-1])) if v.shape[-1] < q.shape[-1] else v


def _sink_key(k: Tensor) -> Tensor:
    """A key whose last feature is one, the rest zero."""
    key = torch.zeros_like(k[:, :, :1])
    key[..., -1] = 1
    return key

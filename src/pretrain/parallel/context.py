"""Context parallelism: ranks have a part of every sequence each, and the keys and values of all of it.

A sequence is cut into 2 · cp chunks, and a rank has one from either end, so that under a causal mask all see as much;
keys and values are gathered (Dubey et al. 2024, arXiv 2407.21783, 3.3.2). Each chunk goes through attention with what
it reaches of them, whatever the mask and the backend.

Where no gradient is asked for, every rank holds the whole sequence, as under tensor parallelism.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from pretrain.attention.entrance import Attend
from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window, reach
from pretrain.base.errors import UserError
from pretrain.model.ahead import Ahead, Later, every_block
from pretrain.model.layers.experts import Experts
from pretrain.parallel.links import gather


@dataclass(frozen=True)
class Context:
    """The seam of attention, for the ranks of a group."""

    group: ProcessGroup

    def whole(self, *parts: Tensor) -> list[Tensor]:
        """Parts [batch, heads, seq / cp, …] of all ranks, in order of place, in one message."""
        if not torch.is_grad_enabled():
            return list(parts)
        x = gather(torch.cat(parts, -1).transpose(1, 2), self.group)
        return list(in_order(x, self.group.size()).transpose(1, 2).split([part.shape[-1] for part in parts], -1))

    def own(self, whole: Tensor) -> Tensor:
        """This rank's columns of [batch, seq, …]."""
        if not torch.is_grad_enabled():
            return whole
        return whole[:, torch.from_numpy(columns(whole.shape[1], self.group.rank(), self.group.size()))]

    def __call__(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """Attention of this rank's queries; `mask` is of the whole sequence, and keys that are whole are not traded."""
        if not torch.is_grad_enabled():
            return attend(q, k, v, mask=mask)
        if k.shape[2] == q.shape[2]:
            k, v = self.whole(k, v)
        return of_chunks(attend, q, k, v, mask, self.group.rank(), self.group.size())

    def later(self, later: Later, embedded: Tensor, k: int) -> Tensor:
        """What `later` makes of all ranks' parts [batch, seq / cp, embed], at this rank's places."""
        if not torch.is_grad_enabled():
            return later(embedded, k)
        whole = in_order(gather(embedded, self.group), self.group.size())
        return self.own(later(whole, k))

    def sum(self, x: Tensor) -> Tensor:
        """Over ranks, of what they have counted in their parts of the same sequences; it has no backward."""
        if torch.is_grad_enabled():
            dist.all_reduce(x, group=self.group)
        return x


def divide(model: nn.Module, group: ProcessGroup) -> None:
    """Puts the links between. Raises UserError for a block whose attention has no seam."""
    context = Context(group)
    for name, block in every_block(model):
        seams = [module for module in block.modules() if hasattr(module, "exchange")]
        if not seams:
            what = f"{name} has no attention that sees the other parts of a sequence"
            raise UserError(f"parallel.cp: {what}", expected="parallel.cp = 1 for this family")
        for module in seams:
            module.exchange = context  # type: ignore[assignment]
    for module in model.modules():
        if isinstance(module, Experts):
            module.sequence = context.sum
        elif isinstance(module, Ahead):
            module.later = partial(context.later, module.later)


def columns(sequence: int, place: int, size: int) -> np.ndarray:
    """The places of a sequence that are a rank's: chunk `place` of 2 · size, and the one as far from the end."""
    chunks = np.arange(sequence).reshape(2 * size, -1)
    return chunks[[place, -1 - place]].ravel()


def in_order(x: Tensor, size: int) -> Tensor:
    """[batch, seq, …] of ranks' columns one after another, in order of place."""
    early, late = x.unflatten(1, (size, 2, -1)).unbind(2)
    return torch.cat([early.flatten(1, 2), late.flip(1).flatten(1, 2)], 1)


def of_chunks(attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Mask, place: int, size: int) -> Tensor:
    """Attention of the queries at a rank's columns over all keys."""
    length = q.shape[2] // 2
    starts = place * length, (2 * size - 1 - place) * length
    return torch.cat([of_part(attend, *one, k, v, mask) for one in zip(starts, q.chunk(2, 2), strict=True)], 2)


def of_part(attend: Attend, start: int, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attention of queries that begin at place `start` among the keys. For `attend` they are the last ones of those
    that it is given: a window that reaches beyond them is moved."""
    end, keys = start + q.shape[2], k.shape[2]
    rows = zip(q.split(1), k.split(1), v.split(1), strict=True)
    if isinstance(mask, Prefix):
        lengths = mask.lengths.tolist()
        return torch.cat([_of_prefix(attend, start, *row, n) for row, n in zip(rows, lengths, strict=True)])
    if isinstance(mask, Documents):
        if reach(mask.inside)[1] != 0:
            every = zip(rows, mask.counted(), strict=True)
            return torch.cat([_by_document(attend, start, *row, lengths, mask.inside) for row, lengths in every])
        lengths = [_until(end, row) for row in mask.counted()]
        return attend(q, k[:, :, :end], v[:, :, :end], mask=replace(mask, ids=mask.ids[:, :end], lengths=lengths))
    before, after = reach(mask)
    low = 0 if before is None else max(start - before, 0)
    high = keys if after is None else min(end + after, keys)
    if isinstance(mask, Window):
        mask = Window(mask.before + high - end, mask.after - (high - end))
    return attend(q, k[:, :, low:high], v[:, :, low:high], mask=mask)


def _of_prefix(attend: Attend, start: int, q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
    inside = min(max(length - start, 0), q.shape[2])
    first, rest = q[:, :, :inside], q[:, :, inside:]
    parts = [attend(first, k[:, :, :length], v[:, :, :length], mask=Full())] if inside else []
    return torch.cat([*parts, of_part(attend, start + inside, rest, k, v, Causal())] if rest.shape[2] else parts, 2)


def _by_document(
    attend: Attend, start: int, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], inside: Full | Causal | Window
) -> Tensor:
    parts, end = [], start + q.shape[2]
    for last, length in zip(accumulate(lengths), lengths, strict=True):
        begin = last - length
        low, high = max(begin, start), min(last, end)
        if low < high:
            own = q[:, :, low - start : high - start]
            parts.append(of_part(attend, low - begin, own, k[:, :, begin:last], v[:, :, begin:last], inside))
    return torch.cat(parts, 2)


def _until(end: int, lengths: Sequence[int]) -> list[int]:
    """Lengths of a row's documents, as far as they stand before a place."""
    ends = [min(last, end) for last in accumulate(lengths)]
    return [b - a for a, b in zip([0, *ends], ends, strict=False) if a < b]

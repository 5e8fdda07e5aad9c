"""Which part of a weight a rank holds: boxes of the whole tensor, and where they lie in the rank's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.model.weights import Axis, Place, Weight, segments
from pretrain.parallel.layout import SHARDED

Ranges = list[tuple[int, int]]  # half-open, of one dimension of the whole tensor


@dataclass(frozen=True)
class Box:
    """A block of a tensor: `start` in the whole one, `at` in a rank's own, `size` along each dimension."""

    start: tuple[int, ...]
    at: tuple[int, ...]
    size: tuple[int, ...]

    def of_whole(self, whole: Tensor) -> Tensor:
        """Its view of the whole tensor."""
        return whole[tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))]

    def of_own(self, own: Tensor) -> Tensor:
        """Its view of the rank's own."""
        return own[tuple(slice(a, a + n) for a, n in zip(self.at, self.size, strict=True))]


def paste(own: Tensor, blocks: Sequence[Box], shape: Sequence[int], place: Place, make: Callable[[], Tensor]) -> None:
    """Copies what a rank holds of the part of a whole tensor of `shape` that is at a place; it is made only then."""
    spans = [
        (at, at + 1) if isinstance(at, int) else at.indices(size)[:2] for at, size in zip(place, shape, strict=False)
    ]
    spans += [(0, size) for size in shape[len(place) :]]
    made: Tensor | None = None
    for box in blocks:
        lows = [max(low, start) for (low, _), start in zip(spans, box.start, strict=True)]
        highs = [min(high, start + n) for (_, high), start, n in zip(spans, box.start, box.size, strict=True)]
        if all(low < high for low, high in zip(lows, highs, strict=True)):
            made = make().reshape([high - low for low, high in spans]) if made is None else made
            size = tuple(high - low for low, high in zip(lows, highs, strict=True))
            source = tuple(low - first for low, (first, _) in zip(lows, spans, strict=True))
            target = tuple(at + low - start for at, low, start in zip(box.at, lows, box.start, strict=True))
            both = Box(source, target, size)
            both.of_own(own).copy_(both.of_whole(made))


def whole(shape: Sequence[int]) -> Box:
    """All of a tensor."""
    zero = (0,) * len(shape)
    return Box(zero, zero, tuple(shape))


def numbers(shape: Sequence[int], blocks: Sequence[Box], own: Tensor) -> Tensor:
    """int64 like a rank's own part: the number of each of its elements in the whole tensor, row after row."""
    out = torch.empty(own.shape, dtype=torch.int64, device=own.device)
    for box in blocks:
        place = torch.zeros((), dtype=torch.int64, device=own.device)
        for start, size, length in zip(box.start, box.size, shape, strict=True):
            place = place[..., None] * length + torch.arange(start, start + size, device=own.device)
        box.of_own(out).copy_(place)
    return out


def divided(weight: Weight) -> int | None:
    """The dimension that tensor parallelism divides, if any: the first (column) or the last (row)."""
    names = [set(name.split("+")) for name in weight.axes.split()]
    found = [dim for dim, parts in enumerate(names) if parts <= set(SHARDED)]
    return found[0] if found else None


def ranges(weight: Weight, axes: Mapping[str, Axis], dim: int, rank: int, size: int) -> Ranges:
    """What rank `rank` of `size` holds along `dim`: its share of every segment of a sum of axes."""
    out, start = [], 0
    for length in segments(weight.axes.split()[dim], axes):
        share = length // size
        out.append((start + rank * share, start + (rank + 1) * share))
        start += length
    return out


def rows_of(ranges: Ranges, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """(start in the whole, start in [first, last) of the own, length), of ranges that lie one after the other."""
    at = 0
    for low, high in ranges:
        begin, end = max(first, at), min(last, at + high - low)
        if begin < end:
            yield low + begin - at, begin - first, end - begin
        at += high - low


def boxes(shape: tuple[int, ...], dim: int | None, parts: Ranges, first: int, last: int) -> list[Box]:
    """Of a weight of `shape`, divided along `dim` into `parts` and then along dimension 0 into rows [first, last)."""
    every: list[Ranges] = [[(0, size)] for size in shape]
    if dim is not None:
        every[dim] = parts
    out = []
    for start, at, length in rows_of(every[0], first, last):
        rest: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [((start,), (at,), (length,))]
        for along in every[1:]:
            wide = sum(high - low for low, high in along)
            rest = [
                ((*a, low), (*b, place), (*c, many)) for a, b, c in rest for low, place, many in rows_of(along, 0, wide)
            ]
        out += [Box(*one) for one in rest]
    return out

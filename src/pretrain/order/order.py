"""Which row of which source stands at a position: a pure function of the history and one integer.

Shares are met within one row per source at every block's end: each source has at least the floor of its cumulative
share, and what is left goes to those whose next row falls due first (Tijdeman 1980, the chairman assignment problem).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from pretrain.base.random import key, permute, permute_keyed, unpermute_keyed

ORDER_VERSION = 1
BLOCK = 4096  # positions that are shuffled together
CHUNK = 2**14  # rows of a source that are shuffled together: reads stay local
WHOLE = 2**40  # what shares are parts of: one row in 10¹² is still told apart
TOGETHER = 1024  # blocks that are counted at once: BLOCK * TOGETHER * WHOLE fits into int64


@dataclass(frozen=True)
class Segment:
    """From `position` on: the sources' weights, and how many rows of each are consumed before."""

    position: int
    weights: Mapping[str, float]
    consumed: Mapping[str, int]
    recipe: str = ""  # digest of what the recipe asked for


@dataclass(frozen=True)
class History:
    """All that happens to the order: its segments, first at position 0. With a position, all the state of the data.

    What a recipe plans ahead stands in it too, until the recipe says something else. `skipped` are ranges of positions,
    [start, stop), apart and in order, which were passed over: no weight has learned from them.
    """

    segments: tuple[Segment, ...]
    skipped: tuple[tuple[int, int], ...] = ()

    def without(self, start: int, stop: int) -> "History":
        """The history after positions `start` to `stop` were passed over."""
        return replace(self, skipped=(*self.skipped, (start, stop)))

    def learned(self, position: int) -> int:
        """Positions before that one which were not passed over."""
        return position - sum(max(min(stop, position) - start, 0) for start, stop in self.skipped)

    def to_json(self) -> dict[str, object]:
        """Plain tables."""
        return {"segments": [asdict(segment) for segment in self.segments], "skipped": [list(s) for s in self.skipped]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | list[dict]) -> "History":
        """Of plain tables; a list is what was written before ranges could be skipped."""
        tables = {"segments": found} if isinstance(found, list) else found
        segments = tuple(Segment(**table) for table in tables["segments"])
        return cls(segments, tuple((start, stop) for start, stop in tables.get("skipped", ())))


class Order:
    """Sources of `rows` rows each, drawn as `history` says; every row once an epoch, another order each epoch."""

    def __init__(self, seed: int, rows: Mapping[str, int], history: History) -> None:
        self.seed, self.rows, self.history = seed, dict(rows), history
        self.sources = tuple(sorted(rows))
        self._segments = [_Shares(seed, self.sources, segment) for segment in history.segments]
        self._sizes = np.array([self.rows[name] for name in self.sources], np.int64)
        self._starts = np.array([segment.position for segment in history.segments])

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(number of the source, epoch, row in it), int64 [n] each, of positions int64 [n]."""
        positions = np.asarray(positions, np.int64)
        source, turn = np.empty_like(positions), np.empty_like(positions)
        which = np.searchsorted(self._starts, positions, "right") - 1
        for segment in np.unique(which):
            here = which == segment
            source[here], turn[here] = self._segments[segment].turns(positions[here])
        epoch, place = np.divmod(turn, self._sizes[source])
        visits, visit = np.unique(epoch * len(self.sources) + source, return_inverse=True)
        names = [(self.sources[one], epoch) for epoch, one in zip(*divmod(visits, len(self.sources)), strict=True)]
        sizes = self._sizes[visits % len(self.sources)]
        return source, epoch, shuffled(place, visit, sizes, [(name, int(number)) for name, number in names], self.seed)

    def consumed(self, position: int) -> dict[str, int]:
        """Rows of each source before a position."""
        which = int(np.searchsorted(self._starts, position, "right")) - 1
        counts = self._segments[which].before(position) if which >= 0 else [0] * len(self.sources)
        return dict(zip(self.sources, counts, strict=True))

    def changed(self, position: int, weights: Mapping[str, float], recipe: str) -> History:
        """The history after new weights from `position` on: each source goes on where it stood."""
        segment = Segment(position, dict(weights), self.consumed(position), recipe)
        kept = tuple(one for one in self.history.segments if one.position < position)
        return replace(self.history, segments=(*kept, segment))


class _Shares:
    """One segment: whose turn it is at a position, and which of its turns."""

    def __init__(self, seed: int, sources: tuple[str, ...], segment: Segment) -> None:
        self.seed, self.start = seed, segment.position
        self.before_start = [int(segment.consumed.get(name, 0)) for name in sources]
        self.parts = whole_parts([float(segment.weights.get(name, 0.0)) for name in sources])
        self.counts = lru_cache(maxsize=64)(self._counts)
        self.block = lru_cache(maxsize=8)(self._block)

    def _counts(self, block: int) -> list[int]:
        """Turns of each source before a block, those of earlier segments included."""
        return [a + b for a, b in zip(self.before_start, quotas(self.parts, block), strict=True)]

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, turn) of every slot of a block, int64 [BLOCK] each."""
        before = np.array(self.counts(block), np.int64)
        each = np.array(self.counts(block + 1), np.int64) - before
        bounds = np.cumsum(each)
        drawn = permute(np.arange(BLOCK), BLOCK, self.seed, "block", self.start, block)
        source = np.searchsorted(bounds, drawn, "right")
        turn = np.empty(BLOCK, np.int64)
        turn[np.argsort(source, kind="stable")] = np.arange(BLOCK) + np.repeat(before - bounds + each, each)
        return source, turn

    def turns(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, turn) of positions."""
        block, slot = np.divmod(positions - self.start, BLOCK)
        source, turn = np.empty_like(positions), np.empty_like(positions)
        for one in np.unique(block):
            here = block == one
            sources, turns = self.block(int(one))
            source[here], turn[here] = sources[slot[here]], turns[slot[here]]
        return source, turn

    def before(self, position: int) -> list[int]:
        """Turns of each source before a position, those of earlier segments included."""
        block, slot = divmod(position - self.start, BLOCK)
        counts = self.counts(block)
        if not slot:
            return counts
        partial = np.bincount(self.block(block)[0][:slot], minlength=len(self.parts))
        return [count + int(more) for count, more in zip(counts, partial, strict=True)]


def whole_parts(weights: list[float]) -> list[int]:
    """Weights as whole parts of WHOLE, by largest remainder."""
    total = sum(weights)
    exact = [weight / total * WHOLE for weight in weights]
    parts = [int(part) for part in exact]
    late = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in late[: WHOLE - sum(parts)]:
        parts[i] += 1
    return parts


def quotas(parts: Sequence[int], blocks: int) -> list[int]:
    """Rows of each source in the first `blocks` blocks, as if they had been given out block by block; exact.

    At each block's end a source has the rows that have fallen due, and some have one ahead: as many as are needed to
    fill the blocks, given to those whose next row falls due first. A row ahead at the end was given since its source's
    last row fell due, because too few other rows were left; and too few are left only when the fractions of rows that
    such sources wait for make up a row. Only blocks since then are looked at: the cost depends on the rarest shares,
    not on `blocks`.
    """
    fallen, waits = zip(*(divmod(blocks * BLOCK * part, WHOLE) for part in parts), strict=True)
    drawn = [i for i, part in enumerate(parts) if part]
    left = blocks * BLOCK - sum(fallen)
    if not left:
        return list(fallen)
    since = {i: -(-fallen[i] * WHOLE // (parts[i] * BLOCK)) for i in drawn}  # blocks when its last row had fallen due
    urgent = sorted(drawn, key=lambda i: ((fallen[i] + 1) * WHOLE * WHOLE // parts[i], i))
    early = sorted(drawn, key=lambda i: since[i])
    enough = next(i for i, waiting in zip(early, accumulate(waits[i] for i in early), strict=True) if waiting >= WHOLE)
    ahead: list[int] = []
    for first in range(since[enough], blocks + 1, TOGETHER):
        ends = np.arange(first, min(first + TOGETHER, blocks + 1))
        needed = np.maximum.accumulate(_rows_ahead(parts, ends, np.array([since.get(i, 0) for i in range(len(parts))])))
        for end in np.flatnonzero(np.diff(needed, prepend=0) > 0):
            free = [i for i in urgent if since[i] <= ends[end] and i not in ahead]
            ahead += free[: max(int(needed[end]) - len(ahead), 0)]
    return [rows + (i in ahead) for i, rows in enumerate(fallen)]


def _rows_ahead(parts: Sequence[int], ends: np.ndarray, since: np.ndarray) -> np.ndarray:
    """How many sources must be ahead for good at the ends of consecutive blocks: int64 [ends] of block numbers.

    What fills the blocks besides is rows that have fallen due, and one more of each source that has a last row to come.
    """
    first = int(ends[0]) * BLOCK
    whole = [divmod(first * part, WHOLE) for part in parts]
    steps = (ends - ends[0]) * BLOCK
    rest = np.array([remainder for _, remainder in whole], np.int64)
    fallen = (rest + steps[:, None] * np.array(parts, np.int64)) // WHOLE
    to_come = (since > ends[:, None]).sum(1)
    return first - sum(rows for rows, _ in whole) + steps - fallen.sum(1) - to_come


def shuffled(
    place: np.ndarray, visit: np.ndarray, rows: np.ndarray, visits: Sequence[tuple[str, int]], seed: int
) -> np.ndarray:
    """The rows that stand at places of sources' epochs: chunks in a keyed order, and rows in one inside each.

    `visits` are (source, epoch), `rows` int64 [visits] the source's size; `place` int64 [n] lies in `visit` int64 [n].
    """
    chunks = -(-rows // CHUNK)
    last = rows - (chunks - 1) * CHUNK
    keys = np.array([key(seed, "chunks", *one) for one in visits], np.uint64)
    short = unpermute_keyed(chunks - 1, chunks, keys)[visit]  # where the chunk that is not full stands
    chunks, last, keys = chunks[visit], last[visit], keys[visit]
    rest = place - short * CHUNK
    after, inside_short = rest >= last, (rest >= 0) & (rest < last)
    moved = np.where(after, place - last, place)
    stands = np.where(inside_short, short, moved // CHUNK + after)
    inside = np.where(inside_short, rest, moved % CHUNK)
    chunk = permute_keyed(stands, chunks, keys)
    most = int(chunks.max(initial=1))
    pairs, which = np.unique(visit * most + chunk, return_inverse=True)
    named = [(*visits[pair // most], pair % most) for pair in pairs.tolist()]
    keys = np.array([key(seed, "inside", *one) for one in named], np.uint64)
    return chunk * CHUNK + permute_keyed(inside, np.where(chunk == chunks - 1, last, CHUNK), keys[which])

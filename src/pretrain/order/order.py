"""Which row of which source stands at a position: a pure function of the history and one integer.

Shares are met within one row per source at every block's end: each source has at least the floor of its cumulative
share, and what is left goes to those whose next row falls due first (Tijdeman 1980, the chairman assignment problem).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from pretrain.base.random import key, permute, permute_keyed, unpermute

ORDER_VERSION = 1
BLOCK = 4096  # positions that are shuffled together
CHUNK = 2**14  # rows of a source that are shuffled together: reads stay local
ANCHOR = 64  # blocks between remembered counts
WHOLE = 2**40  # what shares are parts of: one row in 10¹² is still told apart


@dataclass(frozen=True)
class Segment:
    """From `position` on: the sources' weights, and how many rows of each were consumed before."""

    position: int
    weights: Mapping[str, float]
    consumed: Mapping[str, int]
    recipe: str = ""  # digest of the recipe that said so


@dataclass(frozen=True)
class History:
    """All that happened to the order: its segments, first at position 0. With a position, all the state of the data."""

    segments: tuple[Segment, ...]

    def to_json(self) -> list[dict[str, object]]:
        """Plain tables."""
        return [asdict(segment) for segment in self.segments]

    @classmethod
    def from_json(cls, tables: list[dict]) -> "History":
        """Of plain tables."""
        return cls(tuple(Segment(**table) for table in tables))


class Order:
    """Sources of `rows` rows each, drawn as `history` says; every row once an epoch, another order each epoch."""

    def __init__(self, seed: int, rows: Mapping[str, int], history: History) -> None:
        self.seed, self.rows, self.history = seed, dict(rows), history
        self.sources = tuple(sorted(rows))
        self._segments = [_Shares(seed, self.sources, segment) for segment in history.segments]
        self._starts = np.array([segment.position for segment in history.segments])

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(number of the source, epoch, row in it), int64 [n] each, of positions int64 [n]."""
        positions = np.asarray(positions, np.int64)
        source, turn = np.empty_like(positions), np.empty_like(positions)
        which = np.searchsorted(self._starts, positions, "right") - 1
        for segment in np.unique(which):
            here = which == segment
            source[here], turn[here] = self._segments[segment].turns(positions[here])
        sizes = np.array([self.rows[name] for name in self.sources], np.int64)[source]
        epoch, place = np.divmod(turn, sizes)
        row = np.empty_like(positions)
        for one, number in np.unique(np.stack([source, epoch], 1), axis=0):
            here = (source == one) & (epoch == number)
            name = self.sources[one]
            row[here] = shuffled(place[here], self.rows[name], self.seed, name, int(number))
        return source, epoch, row

    def consumed(self, position: int) -> dict[str, int]:
        """Rows of each source before a position."""
        which = int(np.searchsorted(self._starts, position, "right")) - 1
        counts = self._segments[max(which, 0)].before(position)
        return dict(zip(self.sources, counts, strict=True))

    def changed(self, position: int, weights: Mapping[str, float], recipe: str) -> History:
        """The history after new weights from `position` on: each source goes on where it stood."""
        segment = Segment(position, dict(weights), self.consumed(position), recipe)
        kept = tuple(one for one in self.history.segments if one.position < position)
        return History((*kept, segment))


class _Shares:
    """One segment: whose turn it is at a position, and which of its turns."""

    def __init__(self, seed: int, sources: tuple[str, ...], segment: Segment) -> None:
        self.seed, self.start = seed, segment.position
        self.before_start = [int(segment.consumed.get(name, 0)) for name in sources]
        self.parts = whole_parts([float(segment.weights.get(name, 0.0)) for name in sources])
        self._anchors = [[0] * len(sources)]
        self.block = lru_cache(maxsize=8)(self._block)

    def counts(self, block: int) -> list[int]:
        """Turns of each source in this segment before a block."""
        anchor = min(block // ANCHOR, len(self._anchors) - 1)
        counts, at = self._anchors[anchor], anchor * ANCHOR
        while at < block:
            at += 1
            counts = apportion(counts, self.parts, at * BLOCK)
            if at == len(self._anchors) * ANCHOR:
                self._anchors.append(counts)
        return counts

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, turn) of every slot of a block, int64 [BLOCK] each."""
        before, after = self.counts(block), self.counts(block + 1)
        bounds = np.cumsum(np.subtract(after, before))
        drawn = permute(np.arange(BLOCK), BLOCK, self.seed, "block", self.start, block)
        source = np.searchsorted(bounds, drawn, "right")
        turn = np.empty(BLOCK, np.int64)
        for one in np.unique(source):
            here = source == one
            turn[here] = self.before_start[one] + before[one] + np.arange(here.sum())
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
        partial = np.bincount(self.block(block)[0][:slot], minlength=len(self.parts)) if slot else [0] * len(self.parts)
        return [a + b + int(c) for a, b, c in zip(self.before_start, self.counts(block), partial, strict=True)]


def whole_parts(weights: list[float]) -> list[int]:
    """Weights as whole parts of WHOLE, by largest remainder."""
    total = sum(weights)
    exact = [weight / total * WHOLE for weight in weights]
    parts = [int(part) for part in exact]
    late = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in late[: WHOLE - sum(parts)]:
        parts[i] += 1
    return parts


def apportion(counts: list[int], parts: list[int], rows: int) -> list[int]:
    """Counts when `rows` rows are given out, never less than the `counts` before; exact, in whole numbers."""
    floors = [rows * part // WHOLE for part in parts]
    new = [max(count, floor) for count, floor in zip(counts, floors, strict=True)]
    due = [i for i, part in enumerate(parts) if part and new[i] == floors[i]]
    due.sort(key=lambda i: ((floors[i] + 1) * WHOLE * WHOLE // parts[i], i))
    for i in due[: rows - sum(new)]:
        new[i] += 1
    return new


def shuffled(place: np.ndarray, rows: int, seed: int, source: str, epoch: int) -> np.ndarray:
    """The rows that stand at places of a source's epoch: chunks in a keyed order, and rows in one inside each."""
    chunks = -(-rows // CHUNK)
    last = rows - (chunks - 1) * CHUNK
    short = unpermute(chunks - 1, chunks, seed, "chunks", source, epoch)  # where the one that is not full stands
    rest = place - short * CHUNK
    after, inside_short = rest >= last, (rest >= 0) & (rest < last)
    moved = np.where(after, place - last, place)
    stands = np.where(inside_short, short, moved // CHUNK + after)
    inside = np.where(inside_short, rest, moved % CHUNK)
    chunk = permute(stands, chunks, seed, "chunks", source, epoch)
    keys = np.empty(len(place), np.uint64)
    for one in np.unique(chunk):
        keys[chunk == one] = key(seed, "inside", source, epoch, int(one))
    sizes = np.where(chunk == chunks - 1, last, CHUNK)
    return chunk * CHUNK + permute_keyed(inside, sizes, keys)

"""The order of a run, backwards: from rows of a source to the positions where they stand."""

from collections.abc import Collection, Iterator

import numpy as np

from pretrain.base.random import unpermute
from pretrain.order.order import CHUNK, Order

NARROW = 4096  # positions that are looked through one by one


def positions(order: Order, source: str, rows: Collection[int], until: int) -> list[int]:
    """All positions before `until` at which one of some rows of a source stands, in order.

    A row has one turn in each epoch. Which position a turn falls on is bisected by how many rows the source had
    consumed before: no position far from a turn is looked at.
    """
    if until <= 0 or not rows:
        return []
    turns = turns_of(order, source, rows, order.consumed(until)[source])
    return list(_located(order, source, np.array(sorted(turns), np.int64), 0, until, 0))


def turns_of(order: Order, source: str, rows: Collection[int], count: int) -> list[int]:
    """Which of the first `count` rows that a source gives are one of `rows`."""
    size, turns = order.rows[source], list[int]()
    for epoch in range(-(-count // size)):
        turns += [epoch * size + place(row, size, order.seed, source, epoch) for row in rows]
    return [turn for turn in turns if turn < count]


def place(row: int, rows: int, seed: int, source: str, epoch: int) -> int:
    """Where a row stands in a source's epoch: the inverse of `order.shuffled`."""
    chunks, (chunk, inside) = -(-rows // CHUNK), divmod(row, CHUNK)
    last = rows - (chunks - 1) * CHUNK  # rows of the chunk that is not full
    stands = unpermute(chunk, chunks, seed, "chunks", source, epoch)
    short = unpermute(chunks - 1, chunks, seed, "chunks", source, epoch)
    size = last if chunk == chunks - 1 else CHUNK
    return (
        stands * CHUNK
        - (CHUNK - last) * (stands > short)
        + unpermute(inside, size, seed, "inside", source, epoch, chunk)
    )


def _located(order: Order, source: str, turns: np.ndarray, low: int, high: int, before: int) -> Iterator[int]:
    """Positions in [low, high) of sorted turns; the source had `before` turns ahead of `low`."""
    if not len(turns):
        return
    if high - low <= NARROW:
        which = order.at(np.arange(low, high))[0]
        own = np.flatnonzero(which == order.sources.index(source))
        yield from (low + own[turns - before]).tolist()
        return
    middle = (low + high) // 2
    then = order.consumed(middle)[source]
    split = int(np.searchsorted(turns, then))
    yield from _located(order, source, turns[:split], low, middle, before)
    yield from _located(order, source, turns[split:], middle, high, then)

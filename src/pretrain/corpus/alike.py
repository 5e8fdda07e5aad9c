"""Candidates that share a key are joined only where the Jaccard similarity of their shingles is high enough.

Each part has a file of its documents' shingles, uint32: where each row's set ends, then the sets, sorted. Whoever joins
a range of keys maps these files and reads the sets that he compares: memory stays that of a range.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pretrain.base.files import room_for
from pretrain.corpus.clusters import KEYS, write_edges
from pretrain.corpus.document import Document
from pretrain.corpus.exchange import read_range
from pretrain.corpus.parts import Account, StepFile
from pretrain.corpus.steps import current, sampled
from pretrain.corpus.task import Journal

COMPARED = 1000  # documents with the same key that one is compared with at most; it is joined with the first alike


class Shingled(Protocol):
    """A leaf of `corpus/dedup` whose candidates can be held against each other."""

    def shingles(self, document: Document) -> np.ndarray:
        """Hashes of what a text is made of, uint64, sorted, each once."""
        ...


def write_shingles(
    base: StepFile,
    edited: Sequence[StepFile],
    last: StepFile | None,
    step: Shingled,
    sample: float,
    seed: int,
    out: StepFile,
    journal: Journal,
) -> None:
    """The sets of a part's documents that have keys; other rows have empty ones."""
    sets, row = list[np.ndarray](), 0
    for found, alive in current(base, edited, last):
        for document, lives in zip(found, alive, strict=True):
            has = document is not None and (lives or sampled(document.id, seed, sample)) and journal.at(row)
            sets.append(step.shingles(document) if has and document is not None else np.zeros(0, np.uint64))
            row += 1
    save_sets(out, sets)


def save_sets(out: StepFile, sets: Sequence[np.ndarray]) -> None:
    """Writes sets of hashes, of which the upper halves are kept."""
    short = [np.unique((one >> np.uint64(32)).astype(np.uint32)) for one in sets]
    ends = len(sets) + np.cumsum([0, *map(len, short)])[1:]
    partial = out.partial
    with room_for(out.path):
        try:
            with partial.open("wb") as file:
                np.save(file, np.concatenate([ends.astype(np.uint32), *short]))
            out.commit(partial, Account(rows_in=len(sets), rows_out=len(sets)))
        finally:
            partial.unlink(missing_ok=True)


@dataclass
class Sets:
    """The sets of all parts by document number."""

    files: Mapping[int, StepFile]
    _open: dict[int, tuple[np.ndarray, int]] = field(default_factory=dict)

    def __getitem__(self, number: int) -> np.ndarray:
        """A document's, uint32, sorted, as it lies in its file."""
        part, row = number >> 32, number & 0xFFFFFFFF
        if part not in self._open:
            file = self.files[part]
            self._open[part] = np.asarray(np.load(file.path, mmap_mode="r")), file.account().rows_in
        whole, rows = self._open[part]
        return whole[whole[row - 1] if row else rows : whole[row]]


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Of two sorted sets: what they share, of all that is in either."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(len(one) + len(other) - both, 1)


def join_alike(
    shingles: Mapping[int, StepFile],
    least: float,
    keys: Sequence[StepFile],
    part: int,
    count: int,
    out: StepFile,
    journal: Journal,
) -> None:
    """Edges between documents of a range that share a key and are alike.

    The account says how many pairs were compared and how many were joined.
    """
    for file in shingles.values() if part == 0 else ():
        file.check()  # once for all ranges
    rows, sets = read_range(keys, part, count, KEYS), Sets(shingles)
    new = np.ones(len(rows), bool)
    new[1:] = (rows["key"][1:] != rows["key"][:-1]) | (rows["check"][1:] != rows["check"][:-1])
    starts = np.flatnonzero(new)
    stops = np.append(starts[1:], len(rows))
    edges, compared = list[tuple[int, int]](), 0

    def alike(one: int, other: int) -> bool:
        nonlocal compared
        compared += 1
        mine, its = sets[one], sets[other]
        small, large = sorted((len(mine), len(its)))
        return small >= least * large and jaccard(mine, its) >= least

    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if stop > start + 1:
            edges += links(np.unique(rows["number"][start:stop]).tolist(), alike)
    pairs = np.array(edges, np.uint64).reshape(-1, 2)
    write_edges(out, pairs[:, 0], pairs[:, 1], both=True, compared=compared, joined=len(edges))


def links(numbers: Sequence[int], alike: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Pairs that connect those that are alike, directly or by others; as few comparisons as the order allows."""
    groups, found = list[list[int]](), list[tuple[int, int]]()
    for number in numbers:
        left, home, apart = COMPARED, list[int](), list[list[int]]()
        for group in groups:
            place = next((i for i, other in enumerate(group[:left]) if alike(number, other)), None)
            left = max(left - (len(group) if place is None else place + 1), 0)
            if place is None or not home:
                apart.append(group)
            if place is not None:
                found.append((group[place], number))
                home += group if home else []
                home = home or group
        if home:
            home.append(number)
        groups = apart if home else [*apart, [number]]
    return found

"""Connected components of documents that share a key, by alternating large-star and small-star rounds.

Kiveris et al. 2014, "Connected Components in MapReduce and Beyond": every round is an exchange of edges, so that memory
is bounded by a range of them; the result depends on the edges alone, never on who finished first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pretrain.base.random import splitmix
from pretrain.corpus.exchange import ranges, read_range, write_rows
from pretrain.corpus.parts import StepFile, Steps
from pretrain.corpus.task import Journal, Task

KEYS = np.dtype([("key", "<u8"), ("check", "<u8"), ("number", "<u8")])  # a document has this key
EDGES = np.dtype([("key", "<u8"), ("node", "<u8"), ("other", "<u8")])  # `key` spreads the nodes over the ranges
MEMBERS = np.dtype([("key", "<u8"), ("cluster", "<u8"), ("size", "<u8")])  # `key` is the document's number
EARLIER = 0  # the number of all documents of earlier corpora; parts count from 1
Run = Callable[[list[Task]], object]


def number(part: int, rows: np.ndarray) -> np.ndarray:
    """The numbers of a part's rows among all of the corpus, uint64."""
    return (np.uint64(part) << np.uint64(32)) | rows.astype(np.uint64)


@dataclass(frozen=True)
class Clustering:
    """Finds the clusters of all parts' keys; `made_of` names them in the folder of step files."""

    steps: Steps
    name: str
    made_of: object
    run: Run

    def members(self, keys: Sequence[StepFile], join: Callable | None = None) -> list[StepFile]:
        """Files of MEMBERS by document number, of the clusters with more than one. A cluster is named by its least.

        `join` makes edges of the documents with a key: all of them, or those that it finds alike.
        """
        rows = sum(file.entry()["account"]["rows_in"] for file in keys)
        count = ranges(2 * rows, EDGES.itemsize)
        edges, before = self._round("edges", 0, join or star_edges, keys, count), None
        turn = 0
        while (said := self._sum(edges)) != before:
            turn, before = turn + 1, said
            large = self._round("large-star", turn, large_star, edges, count)
            edges = self._round("small-star", turn, small_star, large, count)
        return self._round("members", 0, sizes, edges, count)

    def _round(
        self, what: str, turn: int, function: Callable, inputs: Sequence[StepFile], count: int
    ) -> list[StepFile]:
        files = [self.steps.file(self.name, [self.made_of, what, turn, part, count], ".npy") for part in range(count)]
        todo = [(part, file) for part, file in enumerate(files) if not file.done()]
        self.run([Task(self.name, function, (list(inputs), part, count, file)) for part, file in todo])
        return files

    def _sum(self, edges: Sequence[StepFile]) -> tuple[int, int]:
        entries = [file.entry() for file in edges]
        return sum(entry["edges"] for entry in entries), sum(entry["sum"] for entry in entries) % 2**64


def star_edges(keys: Sequence[StepFile], part: int, count: int, out: StepFile, journal: Journal) -> None:
    """From each document with a key to the least document with it."""
    rows = read_range(keys, part, count, KEYS)
    first = np.ones(len(rows), bool)
    first[1:] = (rows["key"][1:] != rows["key"][:-1]) | (rows["check"][1:] != rows["check"][:-1])
    least = rows["number"][np.flatnonzero(first)[np.cumsum(first) - 1]] if len(rows) else rows["number"]
    write_edges(out, least, rows["number"], both=True)


def large_star(edges: Sequence[StepFile], part: int, count: int, out: StepFile, journal: Journal) -> None:
    """Each node hands its larger neighbours to its least one; edges come in both directions."""
    rows, least = _neighbours(edges, part, count)
    least = np.minimum(least, rows["node"])
    larger = rows["other"] > rows["node"]
    write_edges(out, least[larger], rows["other"][larger], both=False)


def small_star(edges: Sequence[StepFile], part: int, count: int, out: StepFile, journal: Journal) -> None:
    """Each node hands itself and its smaller neighbours to the least of these; an edge stands at its larger end."""
    rows, least = _neighbours(edges, part, count)
    write_edges(out, np.concatenate([least, least]), np.concatenate([rows["other"], rows["node"]]), both=True)


def sizes(edges: Sequence[StepFile], part: int, count: int, out: StepFile, journal: Journal) -> None:
    """Members of the clusters whose least document falls into a range."""
    rows, least = _neighbours(edges, part, count)
    centres = least > rows["node"]  # of a star, the centre is the least
    rows = rows[centres]
    _, where, times = np.unique(rows["node"], return_inverse=True, return_counts=True)
    found = np.zeros(len(rows), MEMBERS)
    found["key"], found["cluster"], found["size"] = rows["other"], rows["node"], times[where] + 1
    own = np.zeros(len(times), MEMBERS)
    own["key"] = own["cluster"] = np.unique(rows["node"])
    own["size"] = times + 1
    write_rows(out, np.concatenate([found, own]))


def _neighbours(edges: Sequence[StepFile], part: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of a range, sorted by node, and for each the least neighbour of its node."""
    rows = np.unique(read_range(edges, part, count, EDGES))
    first = np.ones(len(rows), bool)
    first[1:] = rows["node"][1:] != rows["node"][:-1]
    least = rows["other"][np.flatnonzero(first)[np.cumsum(first) - 1]] if len(rows) else rows["other"]
    return rows, least


def write_edges(out: StepFile, low: np.ndarray, high: np.ndarray, *, both: bool, **more: object) -> None:
    """Edges between different nodes; once at the larger end, or at both; `more` goes into the account."""
    some = low != high
    low, high = np.minimum(low[some], high[some]), np.maximum(low[some], high[some])
    one = np.zeros(len(low), EDGES)
    one["key"], one["node"], one["other"] = splitmix(high), high, low
    one = np.unique(one)
    total = int((splitmix(one["node"]) * np.uint64(3) + splitmix(one["other"])).sum(dtype=np.uint64))
    rows = one
    if both:
        back = one.copy()
        back["key"], back["node"], back["other"] = splitmix(one["other"]), one["other"], one["node"]
        rows = np.concatenate([one, back])
    write_rows(out, rows, edges=len(one), sum=total, **more)

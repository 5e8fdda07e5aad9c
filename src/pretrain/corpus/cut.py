"""Which documents a run keeps, and which it holds out: what all steps said, and the cut that follows from it.

Copies are only marked by the steps: of a cluster, the cut keeps the first that survived every filter, so that no filter
takes a whole cluster along. Clusters of near copies, and groups, are held out whole.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pretrain.base.files import digest, write
from pretrain.base.random import key, splitmix
from pretrain.base.units import show_bytes
from pretrain.corpus.clusters import EARLIER, KEYS, MEMBERS, number
from pretrain.corpus.document import Document, Edit
from pretrain.corpus.exchange import read_range, write_rows
from pretrain.corpus.joins import alive_rows, of_part
from pretrain.corpus.parts import BATCH, Account, StepFile, TableWriter, making
from pretrain.corpus.read_part import TEXT
from pretrain.corpus.steps import current
from pretrain.corpus.task import Journal

CUT_VERSION = 3
RUN_BYTES = 32 * 2**20  # of text that waits to be sorted
ASIDE = "set-aside.json"  # what was left out of a cut since it failed three times
SAID = 4  # reasons that a line on a source names
RANKED = np.dtype([("key", "<u8"), ("cluster", "<u8"), ("rank", "<u8"), ("number", "<u8")])
LOST = np.dtype([("key", "<u8"), ("cluster", "<u8")])  # `key` is the number of a copy that does not stay
DRAWN = np.dtype([("key", "<u8"), ("draw", "<u8")])
KEPT = pa.schema(
    [(name, pa.large_string()) for name in TEXT]
    + [("place", pa.int64()), ("content", pa.string()), ("split", pa.string()), ("order", pa.uint64())]
)
VERDICTS = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "url", "file", "content", "step", "reason", "split", "language")]
    + [("place", pa.int64()), ("bytes", pa.int64()), ("text", pa.large_string())]
)


@dataclass(frozen=True)
class Chain:
    """A part and the files of its steps, in order: (step, file)."""

    number: int
    source: str
    base: StepFile
    files: tuple[tuple[str, StepFile], ...] = ()
    edited: tuple[StepFile, ...] = ()

    @property
    def last(self) -> StepFile | None:
        """The last step's file."""
        return self.files[-1][1] if self.files else None

    @property
    def key(self) -> str:
        """Names all that went into it."""
        return self.last.key if self.last else self.base.key

    def then(self, step: str, file: StepFile, *, edits: bool = False) -> "Chain":
        """The chain with a step more."""
        edited = (*self.edited, file) if edits else self.edited
        return Chain(self.number, self.source, self.base, (*self.files, (step, file)), edited)

    def documents(self) -> Iterator[tuple[list[Document | None], list[bool]]]:
        """Documents as the steps left them, and which are still in."""
        return current(self.base, self.edited, self.last)


def survivors(chain: Chain, lost: Sequence[Sequence[StepFile]]) -> np.ndarray:
    """Rows of a part that no filter dropped and no copy replaced, bool [rows]."""
    alive = alive_rows(chain.base, chain.last)
    for files in lost:
        alive[_rows(of_part(files, chain.number, LOST))] = False
    return alive


def _rows(mine: np.ndarray) -> np.ndarray:
    return (mine["key"] & np.uint64(0xFFFFFFFF)).astype(np.int64)


def rank(
    chain: Chain, marks: StepFile, keep: str, lost: Sequence[Sequence[StepFile]], out: StepFile, journal: Journal
) -> None:
    """The surviving members of clusters, each with its rank: who is first stays."""
    columns = marks.columns("cluster", "cluster_size")
    sizes = np.array(columns["cluster_size"].to_pylist(), float)
    rows = np.flatnonzero(survivors(chain, lost) & (sizes > 1))
    table = np.zeros(len(rows), RANKED)
    table["cluster"] = np.array(columns["cluster"].to_pylist(), np.uint64)[rows]
    table["key"], table["number"] = splitmix(table["cluster"]), number(chain.number, rows)
    if keep == "longest" and len(rows):
        wanted, lengths, row = set(rows.tolist()), {}, 0
        for found, _ in chain.documents():
            for document in found:
                if row in wanted and document is not None:
                    lengths[row] = len(document.text.encode())
                row += 1
        table["rank"] = [2**48 - lengths[one] for one in rows.tolist()]
    write_rows(out, table)


def lose(ranked: Sequence[StepFile], part: int, count: int, most: int, out: StepFile, journal: Journal) -> None:
    """All but the first `most` of each cluster of a range; all that have a copy in an earlier corpus."""
    rows = read_range(ranked, part, count, RANKED)
    new = np.ones(len(rows), bool)
    new[1:] = rows["cluster"][1:] != rows["cluster"][:-1]
    turn = np.arange(len(rows)) - np.flatnonzero(new)[np.cumsum(new) - 1] if len(rows) else np.zeros(0, int)
    late = (turn >= most) | (rows["cluster"] == EARLIER)
    table = np.zeros(int(late.sum()), LOST)
    table["key"], table["cluster"] = rows["number"][late], rows["cluster"][late]
    write_rows(out, table)


def member_draws(
    chain: Chain, members: Sequence[StepFile], lost: Sequence[Sequence[StepFile]], out: StepFile, journal: Journal
) -> None:
    """Each survivor's cluster, its own without one, and the first 64 bits of its id."""
    mine = of_part(members, chain.number, MEMBERS)
    alive = survivors(chain, lost)
    rows = np.flatnonzero(alive)
    cluster = number(chain.number, np.arange(len(alive)))
    cluster[_rows(mine)] = mine["cluster"]
    ids = chain.base.columns("id")["id"].to_pylist()
    table = np.zeros(len(rows), RANKED)
    table["cluster"], table["number"] = cluster[rows], number(chain.number, rows)
    table["key"] = splitmix(table["cluster"])
    table["rank"] = [int(ids[row][:16], 16) for row in rows.tolist()]
    write_rows(out, table)


def cluster_draws(
    ranked: Sequence[StepFile], part: int, count: int, seed: int, out: StepFile, journal: Journal
) -> None:
    """One draw for each cluster, from its survivor with the least id: a large one is held out no sooner."""
    rows = read_range(ranked, part, count, RANKED)
    new = np.ones(len(rows), bool)
    new[1:] = rows["cluster"][1:] != rows["cluster"][:-1]
    table = np.zeros(len(rows), DRAWN)
    table["key"] = rows["number"]
    if len(rows):
        first = rows["rank"][new]  # sorted: a cluster's first is its least
        table["draw"] = np.array([key(seed, "held out", one) for one in first.tolist()], np.uint64)[np.cumsum(new) - 1]
    write_rows(out, table)


def extremes(chain: Chain, drawn: Sequence[StepFile], count: int, journal: Journal) -> tuple[list[int], int]:
    """The `count` least draws of a part's survivors, and the greatest; -1 without any."""
    draws = np.unique(of_part(drawn, chain.number, DRAWN)["draw"])
    return draws[:count].tolist(), int(draws[-1]) if len(draws) else -1


@dataclass(frozen=True)
class HoldOut:
    """Clusters whose draw is at most `below` are held out, but for those that are `spared`."""

    below: int
    spared: frozenset[int] = frozenset()

    @classmethod
    def of(cls, share: float, found: Sequence[tuple[str, tuple[list[int], int]]]) -> "HoldOut":
        """A share of the clusters, one at least where that leaves each source its last one to be trained on.

        `found` are the sources of the parts and their `extremes`, one more than there are sources.
        """
        most: dict[str, int] = {}
        for source, (_, greatest) in found:
            most[source] = max(most.get(source, -1), greatest)
        spared = frozenset(most.values())
        others = {draw for _, (least, _) in found for draw in least} - spared
        return cls(max(int(share * 2**64), min(others)) if share and others else -1, spared)

    def rows(self, held: np.ndarray) -> set[int]:
        """Which rows of DRAWN are held out, by their place in the part."""
        if self.below < 0:
            return set()
        spared = np.isin(held["draw"], np.array(sorted(self.spared - {-1}), np.uint64))
        return set(_rows(held[(held["draw"] <= np.uint64(self.below)) & ~spared]).tolist())


def judge(
    chain: Chain,
    lost: Sequence[tuple[str, str, Sequence[StepFile]]],
    drawn: Sequence[StepFile],
    hold_out: HoldOut,
    seed: int,
    dropped_text: bool,
    masks: Sequence[Edit],
    verdicts: StepFile,
    kept: StepFile,
    journal: Journal,
) -> None:
    """The verdict on every row of a part, and the documents that stay, in the order of a keyed hash.

    The text of a dropped document passes `masks`, the edits that mask personal data, wherever it was dropped.
    """
    steps, reasons = _reasons(chain)
    copies: dict[int, tuple[str | None, str | None]] = {}
    for step, reason, files in reversed(lost):
        copies |= dict.fromkeys(_rows(of_part(files, chain.number, LOST)).tolist(), (step, reason))
    held_rows = hold_out.rows(of_part(drawn, chain.number, DRAWN))
    flaws = chain.base.columns("id", "url", "file", "place")
    row = 0
    with _Runs.of(kept) as stays, making(verdicts, VERDICTS, timed=False) as (writer, account):
        for found, alive in chain.documents():
            for document, lives in zip(found, alive, strict=True):
                because, why = (steps[row], reasons[row]) if not lives else copies.get(row, (None, None))
                split = "dropped" if why is not None or not lives else "held_out" if row in held_rows else "train"
                values = {name: flaws[name][row].as_py() for name in ("id", "url", "file", "place")}
                size = len(document.text.encode()) if document else 0
                noted = journal.at(row)
                shown = document if split == "dropped" and dropped_text and noted else None
                text = masked(shown, masks) if shown is not None else None
                said = {"step": because, "reason": why, "split": split, "bytes": size, "text": text}
                if document is not None:
                    said |= {"content": document.content, "language": document.language}
                writer.add({**values, "source": chain.source, **said})
                account.rows_in += 1
                if split != "dropped" and document is not None:
                    account.rows_out += 1
                    account.bytes_out += size
                    stays.add(_kept(document, split, seed), size)
                else:
                    account.reasons[f"{because}: {why}"] += 1
                row += 1


def masked(document: Document, masks: Sequence[Edit]) -> str:
    """A document's text as edits that mask personal data leave it."""
    for edit in masks:
        document, _ = edit.edit(document)
    return document.text


@dataclass
class _Runs:
    """Documents that stay, written in sorted runs of at most RUN_BYTES, whose ranges `gather` reads and merges."""

    writer: TableWriter
    account: Account
    rows: list[dict] = field(default_factory=list)
    size: int = 0

    @classmethod
    @contextmanager
    def of(cls, file: StepFile) -> Iterator["_Runs"]:
        with making(file, KEPT) as (writer, account):
            runs = cls(writer, account)
            yield runs
            runs.flush()

    def add(self, row: dict, size: int) -> None:
        self.rows.append(row)
        self.size += size
        self.account.rows_out += 1
        self.account.bytes_out += size
        if self.size > RUN_BYTES:
            self.flush()

    def flush(self) -> None:
        self.rows.sort(key=_order)
        for row in self.rows:
            self.writer.add(row)
        self.rows, self.size = [], 0


def _order(row: dict) -> tuple[int, str, int, str]:
    """Where a document stands among those that stay: those of a group together, as they were found."""
    return row["order"], row["group"] or "", row["place"] if row["group"] else 0, row["id"]


def _kept(document: Document, split: str, seed: int) -> dict:
    values: dict[str, object] = {name: getattr(document, name) for name in TEXT}
    order = key(seed, "documents", document.group or document.id)  # neighbours in a file are strangers in a shard
    return {**values, "place": document.place, "content": document.content, "split": split, "order": order}


def _reasons(chain: Chain) -> tuple[list[str | None], list[str | None]]:
    """The step that dropped each row, and why."""
    first = chain.base.columns("step", "reason")
    steps, reasons = first["step"].to_pylist(), first["reason"].to_pylist()
    for step, file in chain.files:
        for row, reason in enumerate(file.columns("reason")["reason"].to_pylist()):
            if reason is not None and reasons[row] is None:
                steps[row], reasons[row] = step, reason
    return steps, reasons


def write_index(keys: StepFile, verdicts: StepFile, out: StepFile, journal: Journal) -> None:
    """The keys of a part's documents that stay, by which a later corpus knows copies of them."""
    splits = np.array(verdicts.columns("split")["split"].to_pylist(), object)
    rows = np.load(keys.path)
    stay = splits[(rows["number"] & np.uint64(0xFFFFFFFF)).astype(np.int64)] != "dropped"
    table = np.zeros(int(stay.sum()), KEYS)
    table["key"], table["check"], table["number"] = rows["key"][stay], rows["check"][stay], EARLIER
    write_rows(out, np.unique(table))


def gather(kept: Sequence[StepFile], part: int, count: int, out: Path, journal: Journal) -> dict[str, list]:
    """The kept documents of a range of the order, from all parts of a source: [documents, bytes, digest] by split."""
    low, high = (part << 64) // count, ((part + 1) << 64) // count - 1
    bounds = [("order", ">=", pa.scalar(low, pa.uint64())), ("order", "<=", pa.scalar(high, pa.uint64()))]
    tables = [pa.parquet.read_table(file.path, filters=bounds) for file in kept]
    rows = [row for table in tables for row in table.to_pylist()]
    rows.sort(key=_order)
    pa.parquet.write_table(pa.Table.from_pylist(rows, KEPT), out, compression="zstd", row_group_size=BATCH)
    said: dict[str, list] = {}
    for split in ("train", "held_out"):
        mine = [row for row in rows if row["split"] == split]
        names = "".join(row["id"] + row["content"] for row in mine)
        said[split] = [len(mine), sum(len(row["text"].encode()) for row in mine), digest(names.encode())]
    return said


def empty(folder: Path) -> None:
    """The cut of a run that brings its tokens along: no documents."""
    write(folder / "parts.json", "[]")
    write(folder / "summary.json", "{}")


@dataclass(frozen=True)
class Cut:
    """The cut in a folder: verdicts on all rows, and the documents that stay."""

    folder: Path

    @cached_property
    def summary(self) -> dict[str, dict]:
        """By source: documents and bytes of each split, and what was dropped for which reason."""
        return json.loads((self.folder / "summary.json").read_bytes())

    @property
    def aside(self) -> list[str]:
        """Parts that were set aside: at which step, where, and why."""
        path = self.folder / ASIDE
        return json.loads(path.read_bytes()) if path.is_file() else []

    def describe(self, source: str) -> str:
        """A sentence on a source: what is trained on, what is held out, what was left out and why."""
        counts, said = self.summary[source], list[str]()
        for split, word in (("train", "to train on"), ("held_out", "held out")):
            documents, size = counts[split]["documents"], counts[split]["bytes"]
            said.append(f"{documents:,} document{'s' if documents != 1 else ''} {word} ({show_bytes(size)})")
        reasons = Counter(counts["dropped_for"]).most_common()
        for reason, count in reasons[:SAID]:
            said.append(f"{count:,} left out: {reason} (such as {counts['such_as'][reason]})")
        if rest := sum(count for _, count in reasons[SAID:]):
            said.append(f"{rest:,} left out for {len(reasons) - SAID} more reasons (`pretrain inspect` says all)")
        return f"{source}: {', '.join(said)}"

    def verdicts(self, columns: Sequence[str] | None = None) -> Iterator[dict]:
        """The verdict on every row, part after part."""
        for path in sorted((self.folder / "verdicts").glob("*.parquet")):
            with pa.parquet.ParquetFile(path) as table:
                for batch in table.iter_batches(BATCH, columns=columns):
                    yield from batch.to_pylist()

    def documents(self, split: str, source: str | None = None) -> Iterator[Document]:
        """Documents of a split ("train" or "held_out") in the order of their keyed hash, a batch in memory."""
        for name in self.summary:
            if source in (None, name):
                for path in sorted((self.folder / "kept" / name).glob("*.parquet")):
                    yield from self._in(path, split)

    def _in(self, path: Path, split: str) -> Iterator[Document]:
        with pa.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(BATCH, columns=[*TEXT, "place", "split"]):
                for row in batch.to_pylist():
                    if row.pop("split") == split:
                        yield Document(**{**row, "group": row["group"] or ""})

    def digest(self, split: str, source: str | None = None) -> str:
        """Names the documents of a split by their ids and contents, in their order."""
        names = [self.summary[name][split]["digest"] for name in self.summary if source in (None, name)]
        return digest("".join(names).encode()) if len(names) != 1 else names[0]


def summarise(folder: Path, gathered: Mapping[str, Sequence[dict[str, list]]]) -> dict[str, dict]:
    """Counts by source, from the verdicts and from what was gathered."""
    out: dict[str, dict] = {}
    for source, parts in gathered.items():
        out[source] = {
            split: {
                "documents": sum(part[split][0] for part in parts),
                "bytes": sum(part[split][1] for part in parts),
                "digest": digest("".join(part[split][2] for part in parts).encode()),
            }
            for split in ("train", "held_out")
        }
        out[source] |= {"dropped": {"documents": 0, "bytes": 0}, "dropped_for": Counter(), "such_as": {}}
    for row in Cut(folder).verdicts(["source", "split", "step", "reason", "bytes", "url"]):
        if row["split"] == "dropped":
            there = out[row["source"]]
            there["dropped"]["documents"] += 1
            there["dropped"]["bytes"] += row["bytes"]
            there["dropped_for"][row["reason"]] += 1
            there["such_as"].setdefault(row["reason"], row["url"])
    return out

"""Steps that look at the whole corpus: keys of each part, an exchange, and a file for each part again."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import xxhash

from pretrain.corpus.clusters import KEYS, MEMBERS, number
from pretrain.corpus.document import Document
from pretrain.corpus.exchange import read_keys, read_range, write_rows
from pretrain.corpus.parts import StepFile, making
from pretrain.corpus.steps import current, sampled
from pretrain.corpus.task import Journal

PIECES = np.dtype([("key", "<u8"), ("check", "<u8"), ("number", "<u8"), ("place", "<u4")])
REPEATED = np.dtype([("key", "<u8"), ("place", "<u4"), ("times", "<u4")])  # `key` is the document's number
SET_ASIDE = "set aside after three failures"
MARKS = pa.schema(
    [("alive", pa.bool_()), ("reason", pa.string()), ("cluster", pa.uint64()), ("cluster_size", pa.float64())]
)
EDITS = pa.schema(
    [
        ("alive", pa.bool_()),
        ("reason", pa.string()),
        ("removed", pa.float64()),
        ("text", pa.large_string()),
        ("language", pa.string()),
    ]
)


class Copies(Protocol):
    """A leaf of `corpus/dedup` that holds documents against each other: copies share a key."""

    reason: str  # why a copy that is not kept is dropped

    def keys(self, document: Document) -> np.ndarray:
        """uint64 [keys] or [keys, 2]: a hash, and one to check it by."""
        ...


class Pieces(Protocol):
    """A leaf of `corpus/dedup` that takes repeated pieces out of documents."""

    most: int  # times that a piece may stand in the corpus before later ones are taken out

    def pieces(self, document: Document) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the pieces, uint64 [pieces, 2], and where each stands, int [pieces, 2]: spans of the text."""
        ...


def write_keys(
    base: StepFile,
    edited: Sequence[StepFile],
    last: StepFile | None,
    step: Copies,
    scope: str,
    part: int,
    sample: float,
    seed: int,
    out: StepFile,
    journal: Journal,
) -> None:
    """The keys of a part's documents that are still in, or measured all the same; `scope` parts the corpus."""
    rows, keys, row = list[int](), list[np.ndarray](), 0
    apart = np.uint64(xxhash.xxh3_64_intdigest(scope.encode()) if scope else 0)
    for found, alive in current(base, edited, last):
        for document, lives in zip(found, alive, strict=True):
            if document is not None and (lives or sampled(document.id, seed, sample)) and journal.at(row):
                some = step.keys(document)
                keys.append(some if some.ndim == 2 else np.stack([some, np.zeros_like(some)], 1))
                rows += [row] * len(some)
            row += 1
    table = np.zeros(len(rows), KEYS)
    if rows:
        whole = np.concatenate(keys)
        table["key"], table["check"] = whole[:, 0] ^ apart, whole[:, 1]
        table["number"] = number(part, np.array(rows))
    write_rows(out, table)


def write_groups(base: StepFile, part: int, out: StepFile, journal: Journal) -> None:
    """A key for every document of a group, so that its documents fall on one side of the split."""
    groups = base.columns("group")["group"].to_pylist()
    rows = [row for row, group in enumerate(groups) if group]
    table = np.zeros(len(rows), KEYS)
    table["key"] = [xxhash.xxh3_64_intdigest(f"group {groups[row]}".encode()) for row in rows]
    table["number"] = number(part, np.array(rows, np.uint64))
    write_rows(out, table)


def mark(
    base: StepFile, last: StepFile | None, members: Sequence[StepFile], part: int, out: StepFile, journal: Journal
) -> None:
    """The cluster of each row of a part and its size, as measures; nothing is dropped yet."""
    alive = alive_rows(base, last)
    mine = of_part(members, part, MEMBERS)
    where = (mine["key"] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    cluster, size = number(part, np.arange(len(alive))), np.ones(len(alive))
    cluster[where], size[where] = mine["cluster"], mine["size"]
    with making(out, MARKS) as (writer, account):
        account.rows_in = account.rows_out = int(alive.sum())
        account.copies = int((alive & (size > 1)).sum())
        for row, lives in enumerate(alive.tolist()):
            values = {"cluster": int(cluster[row]), "cluster_size": float(size[row])}
            writer.add({"alive": lives, "reason": None, **values})


def set_aside(
    base: StepFile,
    last: StepFile | None,
    part: int,
    tables: Sequence[tuple[pa.Schema, StepFile]],
    journal: Journal,
) -> None:
    """Files of steps that failed at a part three times: what was still in is dropped by the first of them."""
    alive = alive_rows(base, last)
    for i, (schema, file) in enumerate(tables):
        with making(file, schema) as (writer, account):
            account.rows_in = 0 if i else int(alive.sum())
            account.reasons.update({SET_ASIDE: account.rows_in} if account.rows_in else {})
            for row, lives in enumerate(alive.tolist()):
                own = {"cluster": (part << 32) | row, "cluster_size": 1.0} if schema == MARKS else {}
                writer.add({"alive": False, "reason": SET_ASIDE if lives and not i else None, **own})


def alive_rows(base: StepFile, last: StepFile | None) -> np.ndarray:
    """Which rows of a part are still in, bool [rows]: after a step, or after reading."""
    if last is None:
        return np.array([reason is None for reason in base.columns("reason")["reason"].to_pylist()], bool)
    return np.array(last.columns("alive")["alive"].to_pylist(), bool)


def of_part(files: Sequence[StepFile], part: int, dtype: np.dtype) -> np.ndarray:
    """Rows keyed by the numbers of a part's documents."""
    return read_keys(files, part << 32, (part + 1) << 32, dtype)


def write_pieces(
    base: StepFile,
    edited: Sequence[StepFile],
    last: StepFile | None,
    step: Pieces,
    part: int,
    out: StepFile,
    journal: Journal,
) -> None:
    """Hashes of all pieces of a part's documents that are still in."""
    tables, row = [np.zeros(0, PIECES)], 0
    for found, alive in current(base, edited, last):
        for document, lives in zip(found, alive, strict=True):
            if document is not None and lives and journal.at(row):
                hashes, _ = step.pieces(document)
                table = np.zeros(len(hashes), PIECES)
                table["key"], table["check"] = hashes[:, 0], hashes[:, 1]
                table["number"] = number(part, np.full(len(hashes), row))
                table["place"] = np.arange(len(hashes))
                tables.append(table)
            row += 1
    write_rows(out, np.concatenate(tables))


def repeated(pieces: Sequence[StepFile], part: int, count: int, most: int, out: StepFile, journal: Journal) -> None:
    """The pieces of a range that stand in the corpus for more than the `most`-th time, by document."""
    rows = read_range(pieces, part, count, PIECES)
    new = np.ones(len(rows), bool)
    new[1:] = (rows["key"][1:] != rows["key"][:-1]) | (rows["check"][1:] != rows["check"][:-1])
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    turn = np.arange(len(rows)) - starts[group] if len(rows) else np.zeros(0, int)
    times = np.diff(np.append(starts, len(rows)))[group] if len(rows) else turn
    late = turn >= most
    table = np.zeros(int(late.sum()), REPEATED)
    table["key"], table["place"], table["times"] = rows["number"][late], rows["place"][late], times[late]
    write_rows(out, table)


def take_out(
    base: StepFile,
    edited: Sequence[StepFile],
    last: StepFile | None,
    step: Pieces,
    found: Sequence[StepFile],
    part: int,
    out: StepFile,
    journal: Journal,
) -> None:
    """Edits the documents of a part: repeated pieces go, and a document of which nothing is left."""
    mine = of_part(found, part, REPEATED)
    first = {int(key): int(start) for key, start in zip(*np.unique(mine["key"], return_index=True), strict=True)}
    times = dict(zip(*np.unique(mine["key"], return_counts=True), strict=True))
    with making(out, EDITS) as (writer, account):
        row = 0
        for documents, alive in current(base, edited, last):
            for document, lives in zip(documents, alive, strict=True):
                name = (part << 32) | row
                values: dict[str, object] = {"alive": lives, "reason": None}
                if document is not None and lives:
                    text = document.text
                    if name in first and journal.at(row):
                        start = first[name]
                        _, spans = step.pieces(document)
                        text = without(text, spans[mine["place"][start : start + times[name]]])
                        values["text"] = text
                    values["removed"] = float(len(document.text) - len(text))
                    account.changed += text != document.text
                    if not text.strip():
                        values |= {"alive": False, "reason": "nothing left"}
                        account.reasons["nothing left"] += 1
                    account.bytes_in += len(document.text.encode())
                    account.bytes_out += len(text.encode()) if values["alive"] else 0
                account.rows_in += lives
                account.rows_out += bool(values["alive"])
                writer.add(values)
                row += 1


def without(text: str, spans: np.ndarray) -> str:
    """The text without some spans [start, stop) of it, which may overlap."""
    kept, end = list[str](), 0
    for start, stop in sorted(map(tuple, spans.tolist())):
        if start > end:
            kept.append(text[end:start])
        end = max(end, stop)
    return "".join([*kept, text[end:]])

"""Which documents a run keeps, and which it holds out: the ledger of all steps, and the cut that follows from it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.extension import leaf
from pretrain.base.files import digest_of, write
from pretrain.base.random import key
from pretrain.base.units import show_bytes
from pretrain.corpus.clusters import clusters
from pretrain.corpus.document import Document
from pretrain.corpus.steps import COLUMNS, DOCUMENTS, FLAWS
from pretrain.recipe.corpus import Corpus

LEDGER_VERSION = 1
CUT, LEDGER, SUMMARY = "cut.parquet", "ledger.parquet", "summary.json"


@dataclass
class Candidate:
    """What is held in memory of a document while the cut is made."""

    source: str
    id: str
    content: str
    url: str
    bytes: int
    buckets: list[tuple[int, int]]
    reason: str = ""
    cluster: str = ""
    split: str = "train"


def make_cut(corpus: Corpus, documents: Mapping[str, Path], folder: Path, seed: int) -> None:
    """Writes ledger.parquet, cut.parquet and summary.json over the documents of all sources.

    A document is dropped by the first filter that it fails. Of a cluster of copies, the first one that passed the
    filters stays, by the order of the sources and then of the ids. Clusters of near copies are held out whole, drawn by
    a keyed hash of the cluster: at least one, and never all, where there are two.
    """
    filters = [(step.use, step.bind()) for step in corpus.steps if step.kind == "corpus.filters"]
    copies = {step.use: step.bind() for step in corpus.steps if step.kind == "corpus.dedup"}
    near = copies.get("minhash") or leaf("corpus.dedup", "minhash")()
    ledger: list[tuple[str, str, str, str, str]] = []
    found = [_measure(one, filters, near, ledger) for one in stored(documents)]
    found.sort(key=lambda one: (list(documents).index(one.source), one.id))
    kept = [one for one in found if not one.reason]
    by_content = _name_clusters(kept, near=False)
    for name, step in copies.items():
        names = by_content if name == "exact" else _name_clusters(kept, near=True)
        seen: set[str] = set()
        for one in kept:
            if names[one.id] in seen and not one.reason:
                one.reason = step.reason
                ledger.append((one.id, one.source, name, json.dumps({"cluster": names[one.id]}), one.reason))
            seen.add(names[one.id])
    for one, cluster in zip(kept, _name_clusters(kept, near=True).values(), strict=True):
        one.cluster = cluster
    _hold_out([one for one in kept if not one.reason], corpus.held_out, seed)
    for one in found:
        one.split = "dropped" if one.reason else one.split
    _write(found, ledger, documents, folder)


def _measure(one: Document, filters: list[tuple[str, Any]], near: Any, ledger: list) -> Candidate:
    buckets = list(enumerate(near.signature(one.words).tolist()))
    size = len(one.text.encode("utf-8", "surrogatepass"))
    candidate = Candidate(one.source, one.id, one.content, one.url, size, buckets)
    for name, step in filters:
        measures = step.measure(one)
        failed = next((rule.reason for rule in step.rules() if not rule.holds(measures[rule.measure])), "")
        ledger.append((one.id, one.source, name, json.dumps(measures), failed))
        if failed:
            candidate.reason = failed
            break
    return candidate


def _name_clusters(kept: list[Candidate], *, near: bool) -> dict[str, str]:
    buckets = ([one.content, *(one.buckets if near else ())] for one in kept)
    ids = [one.id for one in kept]
    return dict(zip(ids, clusters(ids, buckets), strict=True))


def _hold_out(kept: list[Candidate], share: float, seed: int) -> None:
    drawn = {one.cluster: key(seed, "held out", one.cluster) / 2**64 for one in kept}
    if not share or len(drawn) < 2:
        return
    order = sorted(drawn, key=lambda cluster: (drawn[cluster], cluster))
    held = {cluster for cluster in order[:-1] if drawn[cluster] < share} or {order[0]}
    for one in kept:
        if one.cluster in held:
            one.split = "held_out"


def _write(found: list[Candidate], ledger: list, documents: Mapping[str, Path], folder: Path) -> None:
    columns = ("source", "id", "content", "split", "reason", "cluster")
    rows = {name: [getattr(one, name) for one in found] for name in columns}
    pa.parquet.write_table(pa.table(rows), folder / CUT)
    names = ("document", "source", "step", "measures", "reason")
    said = {name: pa.array([row[i] for row in ledger], pa.string()) for i, name in enumerate(names)}
    pa.parquet.write_table(pa.table(said), folder / LEDGER)
    summary = {}
    for source, there in documents.items():
        mine = [one for one in found if one.source == source]
        flaws = Counter(pa.parquet.read_table(there / FLAWS)["reason"].to_pylist())
        counts = {
            split: {
                "documents": sum(one.split == split for one in mine),
                "bytes": sum(one.bytes for one in mine if one.split == split),
            }
            for split in ("train", "held_out", "dropped")
        }
        summary[source] = {**counts, "dropped_for": dict(Counter(one.reason for one in mine if one.reason) + flaws)}
    write(folder / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False))


def stored(documents: Mapping[str, Path]) -> Iterator[Document]:
    """All documents of all sources in stored order, a row group in memory at a time."""
    for folder in documents.values():
        with pa.parquet.ParquetFile(folder / DOCUMENTS) as table:
            for group in table.iter_batches(1024):
                for row in group.to_pylist():
                    yield Document(**{name: row[name] for name in COLUMNS if name != "content"})


@dataclass(frozen=True)
class Cut:
    """The cut in a folder, over the documents in others."""

    folder: Path
    documents_folders: Mapping[str, Path]

    @cached_property
    def _rows(self) -> list[dict]:
        return pa.parquet.read_table(self.folder / CUT).to_pylist()

    @cached_property
    def summary(self) -> dict[str, dict]:
        """By source: documents and bytes of each split, and what was dropped for which reason."""
        return json.loads((self.folder / SUMMARY).read_bytes())

    def describe(self, source: str) -> str:
        """A sentence on a source: what is trained on, what is held out, what was left out and why."""
        counts, said = self.summary[source], list[str]()
        for split, word in (("train", "to train on"), ("held_out", "held out")):
            documents, size = counts[split]["documents"], counts[split]["bytes"]
            said.append(f"{documents:,} document{'s' if documents != 1 else ''} {word} ({show_bytes(size)})")
        flaws = pa.parquet.read_table(self.documents_folders[source] / FLAWS).to_pylist()
        first = {flaw["reason"]: flaw["url"] for flaw in reversed(flaws)}
        for reason, number in counts["dropped_for"].items():
            said.append(f"{number:,} left out: {reason}" + (f" (first {first[reason]})" if reason in first else ""))
        return f"{source}: {', '.join(said)}"

    def documents(self, split: str, source: str | None = None) -> Iterator[Document]:
        """Documents of a split ("train" or "held_out") in stored order."""
        wanted = {row["id"] for row in self._rows if row["split"] == split and source in (None, row["source"])}
        folders = {name: path for name, path in self.documents_folders.items() if source in (None, name)}
        return (one for one in stored(folders) if one.id in wanted)

    def digest(self, split: str, source: str | None = None) -> str:
        """Names the documents of a split by their ids and contents."""
        rows = [row for row in self._rows if row["split"] == split and source in (None, row["source"])]
        return digest_of(sorted([row["id"], row["content"]] for row in rows))

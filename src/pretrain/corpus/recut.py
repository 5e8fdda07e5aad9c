"""What another threshold would keep, lose and gain, from the measures that lie in the ledger: seconds, not a rerun.

A sample is of documents, drawn by their ids. Whether one of it stays may hang on its copies, so those are looked at
too, and not counted.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.corpus.clusters import EARLIER, number
from pretrain.corpus.document import Rule
from pretrain.corpus.parts import StepFile, Steps
from pretrain.corpus.steps import Step, sampled
from pretrain.recipe.corpus import Corpus
from pretrain.recipe.recipe import tree
from pretrain.recipe.schema import Leaf

SHOWN = 5  # samples of what is lost and gained
SMALL = 50_000  # records of a corpus that is looked at whole


@dataclass(frozen=True)
class Estimate:
    """Of a number for the whole corpus, and its standard error."""

    value: int
    error: int = 0
    most: int | None = None  # where none was seen: what it is at most, with 95 % confidence

    def __str__(self) -> str:
        if self.most:
            return f"{self.value:,} (at most {self.most:,}, with 95 % confidence)"
        return f"{self.value:,}" + (f" ± {self.error:,}" if self.error else "")


@dataclass
class Recut:
    """Documents as they are kept, and how many of a `share` of all records would be lost and gained."""

    share: float
    kept: int  # now, of all
    bytes_kept: int
    documents: int = 0  # that were looked at
    lost: int = 0
    gained: int = 0
    unknown: int = 0  # let through by a step behind which they were never measured
    bytes_changed: int = 0
    ids: set[str] = field(default_factory=set)  # of those looked at: that would be kept
    samples: dict[str, list[str]] = field(default_factory=lambda: {"lost": [], "gained": []})

    def scaled(self, count: int) -> Estimate:
        """What a count of the sample says of the whole corpus: binomial, and 3 / n where none was seen."""
        if self.share == 1:
            return Estimate(count)
        error = round((count * (1 - self.share)) ** 0.5 / self.share)
        return Estimate(round(count / self.share), error, None if count else round(3 / self.share))

    @property
    def kept_then(self) -> Estimate:
        """Documents that would be kept."""
        changed = self.gained + self.lost
        return Estimate(self.kept + round((self.gained - self.lost) / self.share), self.scaled(changed).error)

    @property
    def bytes_then(self) -> int:
        """Bytes of text that would be kept, estimated."""
        return self.bytes_kept + round(self.bytes_changed / self.share)


def recut(cut: Path, steps: Steps, now: Corpus, then: Corpus, seed: int, *, exact: bool, small: int = SMALL) -> Recut:
    """Judges the documents of a cut by the rules of other steps; those of a `small` corpus all, as with `exact`.

    Raises UserError where that takes a rerun.
    """
    _comparable(now, then)
    summary = json.loads((cut / "summary.json").read_bytes()).values()
    records = sum(one[split]["documents"] for one in summary for split in ("train", "held_out", "dropped"))
    everything = exact or now.measure == "all" or now.sample == 1.0 or records < small
    stays = [one[split] for one in summary for split in ("train", "held_out")]
    share = 1.0 if everything else now.sample
    out = Recut(share, sum(one["documents"] for one in stays), sum(one["bytes"] for one in stays))
    if not everything and not now.sample:
        raise UserError("corpus.sample is 0: no document was measured by all steps", expected="--exact")
    parts = json.loads((cut / "parts.json").read_bytes())
    looked = _Looked(cut, steps, seed, 1.0 if now.measure == "all" else now.sample, everything)
    mates = [] if everything else looked.clusters(parts, now)
    tables = [_Table.of(part, i, looked, now, then, mates) for i, part in enumerate(parts)]
    for name, corpus in (("now", now), ("then", then)):
        _drop_copies(tables, name, [step.leaf for step in corpus.steps if _is_copies(step.leaf)])
    for table in tables:
        before, after = table.stays["now"] & table.counts, table.stays["then"] & table.counts
        out.documents += int(table.counts.sum())
        out.bytes_changed += int(table.bytes[after].sum()) - int(table.bytes[before].sum())
        out.unknown += int((table.unknown & table.counts).sum())
        out.ids.update(np.array(table.ids, object)[after].tolist())
        for what, rows in (("lost", before & ~after), ("gained", after & ~before)):
            setattr(out, what, getattr(out, what) + int(rows.sum()))
            some = out.samples[what]
            some += [table.urls[row] for row in np.flatnonzero(rows)[: SHOWN - len(some)]]
    return out


def _is_copies(step: Leaf) -> bool:
    return step.kind == "corpus.dedup" and hasattr(leaf(step.kind, step.use), "keys")


def _comparable(now: Corpus, then: Corpus) -> None:
    """Only bounds may differ: whatever changes a measure or a text takes a rerun from its step on."""
    for name, value in tree(then).items():
        if name != "steps" and value != tree(now)[name]:
            raise UserError(f"corpus.{name} is no bound", expected="`pretrain run`, which makes the corpus anew")
    if [(step.leaf.use, step.sources) for step in now.steps] != [(step.leaf.use, step.sources) for step in then.steps]:
        raise UserError("the steps are not the same", expected="`pretrain run`, from the first that differs on")
    leaves = [step.leaf for step in now.steps]
    for i, (one, other) in enumerate(zip(leaves, (step.leaf for step in then.steps), strict=True)):
        if one.options == other.options:
            continue
        old, new = one.bind(), other.bind()
        what = f"corpus.steps.{i} ({one.use})"
        if _is_copies(one):
            same = all(getattr(old, name) == getattr(new, name) for name in vars(old) if name not in ("most", "keep"))
            if not same or old.keep != new.keep:
                raise UserError(
                    f"{what}: other copies are found", expected=f"`pretrain run`, which starts at {one.use}"
                )
        elif one.kind == "corpus.dedup" or (wrong := _no_bounds(Step(one.use, old), new)):
            said = "no bound changes" if one.kind == "corpus.dedup" else f"{wrong} is no bound"
            raise UserError(f"{what}: {said}", expected=f"`pretrain run`, which starts at {one.use}")
        joins = [later.use for later in leaves[i + 1 :] if later.kind == "corpus.dedup" and not _is_copies(later)]
        if joins:
            said = f"{what}: {joins[0]}, after it, takes out what the documents kept so far repeat"
            raise UserError(said, expected=f"`pretrain run`, which starts at {one.use}")


def _no_bounds(old: Step, new: Any) -> str:
    """Options that are others, by name, and change more than what is asked of the measures that there are."""
    rules, wrong = old.leaf.rules(), list[str]()
    for name in (f.name for f in fields(new) if getattr(old.leaf, f.name) != getattr(new, f.name)):
        said = replace(cast(Any, old.leaf), **{name: getattr(new, name)}).rules()
        more = {one.measure for one in said} - {one.measure for one in rules}
        wrong += [name] if said == rules or (more and not more <= set(old.schema().names)) else []
    return ", ".join(wrong)


@dataclass
class _Table:
    """Rows of a part that count, and which of them stay by the rules of now and then."""

    ids: list[str]
    urls: list[str]
    bytes: np.ndarray
    numbers: np.ndarray
    clusters: list[np.ndarray]  # by step that finds copies
    stays: dict[str, np.ndarray]
    unknown: np.ndarray
    counts: np.ndarray  # those of the sample; the rest are copies of them

    @classmethod
    def of(
        cls, part: dict, i: int, looked: "_Looked", now: Corpus, then: Corpus, mates: Sequence[np.ndarray]
    ) -> "_Table":
        verdicts, always, counts = looked.rows(i)
        rows = counts.copy()
        for file, wanted in zip(looked.copies(part, now), mates, strict=False):
            if file is not None:
                rows |= np.isin(file.columns("cluster")["cluster"].to_numpy(), wanted) & looked.documents(verdicts)
        stays = {"now": np.ones(int(rows.sum()), bool), "then": np.ones(int(rows.sum()), bool)}
        unknown, clusters = np.zeros(int(rows.sum()), bool), list[np.ndarray]()
        numbers = number(i + 1, np.flatnonzero(rows))
        for file, old, new in zip(looked.files(part, now), now.steps, then.steps, strict=True):
            if file is None:  # another source's step: each document is alone
                clusters += [numbers] if _is_copies(old.leaf) else []
                continue
            if _is_copies(old.leaf):
                found = file.columns("cluster", "alive")
                clusters.append(np.array(found["cluster"].to_pylist(), np.uint64)[rows])
                unknown |= stays["then"] & ~(np.array(found["alive"].to_pylist(), bool) | always)[rows]
                continue
            rules = {"now": [], "then": []} if old.leaf.kind == "corpus.dedup" else _rules(old.leaf, new.leaf)
            measures = file.columns("reason", *{rule.measure for said in rules.values() for rule in said})
            by_rule = {rule.reason for rule in rules["now"]}
            reasons = np.array(measures["reason"].to_pylist(), object)[rows]
            hard = np.array([one is not None and one not in by_rule for one in reasons], bool)
            for when, some in rules.items():
                holds, known = _hold(some, measures, rows)
                if when == "then":
                    unknown |= stays["then"] & ~known
                stays[when] = stays[when] & holds & ~hard
        stays["then"] &= ~unknown
        pick = np.flatnonzero(rows)
        ids = verdicts["id"]
        return cls(
            [ids[int(row)].as_py() for row in pick],
            [verdicts["url"][int(row)].as_py() for row in pick],
            np.array(verdicts["bytes"].to_pylist(), np.int64)[rows],
            numbers,
            clusters,
            stays,
            unknown,
            counts[rows],
        )


@dataclass(frozen=True)
class _Looked:
    """Which rows of a part are looked at: a sample by id, or everything; never flaws, which no rule brings back."""

    cut: Path
    steps: Steps
    seed: int
    measured: float  # share of the documents that every step measured
    everything: bool

    def rows(self, i: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Verdicts of a part, which of its rows every step measured, and which count."""
        verdicts = StepFile(self.cut / "verdicts" / f"{i:05}.parquet").columns("id", "url", "bytes", "step")
        always = np.array([sampled(one, self.seed, self.measured) for one in verdicts["id"].to_pylist()], bool)
        return verdicts, always, (always | self.everything) & self.documents(verdicts)

    def documents(self, verdicts: dict[str, Any]) -> np.ndarray:
        """Which rows are documents."""
        return np.array([step not in ("read", "extract") for step in verdicts["step"].to_pylist()], bool)

    def files(self, part: dict, corpus: Corpus) -> list[StepFile | None]:
        """A part's file of every step; none where that is for other sources."""
        made = iter([StepFile(self.steps.root / use / f"{name}.parquet") for use, name in part["steps"]])
        return [next(made) if step.takes(part["source"]) else None for step in corpus.steps]

    def copies(self, part: dict, corpus: Corpus) -> list[StepFile | None]:
        """A part's files of the steps that find copies."""
        return [
            file for file, step in zip(self.files(part, corpus), corpus.steps, strict=True) if _is_copies(step.leaf)
        ]

    def clusters(self, parts: Sequence[dict], corpus: Corpus) -> list[np.ndarray]:
        """The clusters of more than one in which a row of the sample is, by step that finds copies."""
        found: list[list[np.ndarray]] = [[np.zeros(0, np.uint64)] for step in corpus.steps if _is_copies(step.leaf)]
        for i, part in enumerate(parts):
            _, _, counts = self.rows(i)
            for some, file in zip(found, self.copies(part, corpus), strict=True):
                if file is None:
                    continue
                columns = file.columns("cluster", "cluster_size")
                several = np.array(columns["cluster_size"].to_pylist(), float) > 1
                some.append(columns["cluster"].to_numpy()[several & counts])
        return [np.unique(np.concatenate(some)) for some in found]


def _rules(old: Leaf, new: Leaf) -> dict[str, list[Rule]]:
    return {"now": old.bind().rules(), "then": new.bind().rules()}


def _hold(rules: Sequence[Rule], measures: dict[str, Any], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows all rules hold for, and which were measured at all."""
    holds, known = np.ones(int(rows.sum()), bool), np.ones(int(rows.sum()), bool)
    for rule in rules:
        values = np.array([np.nan if v is None else v for v in measures[rule.measure].to_pylist()], float)[rows]
        known &= ~np.isnan(values)
        if rule.at_least is not None:
            holds &= ~(values < rule.at_least)
        if rule.at_most is not None:
            holds &= ~(values > rule.at_most)
    return holds, known


def _drop_copies(tables: Sequence[_Table], when: str, steps: Sequence[Leaf]) -> None:
    """Of each cluster its first `most` survivors stay."""
    numbers = np.concatenate([table.numbers for table in tables])
    sizes = np.concatenate([table.bytes for table in tables])
    stays = np.concatenate([table.stays[when] for table in tables])
    for i, step in enumerate(steps):
        bound = step.bind()
        clusters = np.concatenate([table.clusters[i] for table in tables])
        rank = -sizes if bound.keep == "longest" else np.zeros_like(sizes)
        alive = np.flatnonzero(stays)
        order = alive[np.lexsort((numbers[alive], rank[alive], clusters[alive]))]
        new = np.ones(len(order), bool)
        new[1:] = clusters[order][1:] != clusters[order][:-1]
        turn = np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1] if len(order) else np.zeros(0, int)
        stays[order[(turn >= bound.most) | (clusters[order] == EARLIER)]] = False
    start = 0
    for table in tables:
        table.stays[when] = stays[start : start + len(table.ids)]
        start += len(table.ids)

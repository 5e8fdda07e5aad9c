"""What another threshold would keep, lose and gain, from the measures that lie in the ledger: seconds, not a rerun."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.corpus.clusters import EARLIER, number
from pretrain.corpus.document import Rule
from pretrain.corpus.parts import StepFile, Steps
from pretrain.corpus.steps import sampled
from pretrain.recipe.corpus import Corpus
from pretrain.recipe.schema import Leaf

SHOWN = 5  # samples of what is lost and gained


@dataclass
class Recut:
    """Documents as they are kept now and as they would be; counts are those of `share` of all, scaled up."""

    share: float
    documents: int = 0  # that were looked at
    kept: int = 0
    kept_then: int = 0
    lost: int = 0
    gained: int = 0
    unknown: int = 0  # let through by a step behind which they were never measured
    bytes_kept: int = 0
    bytes_then: int = 0
    ids: set[str] = field(default_factory=set)  # that would be kept
    samples: dict[str, list[str]] = field(default_factory=lambda: {"lost": [], "gained": []})

    def scaled(self, count: int) -> tuple[int, int]:
        """An estimate for the whole corpus and its standard error (a binomial count's)."""
        return round(count / self.share), round((count * (1 - self.share)) ** 0.5 / self.share)


def recut(cut: Path, steps: Steps, now: Corpus, then: Corpus, seed: int, *, exact: bool) -> Recut:
    """Judges the documents of a cut by the rules of other steps. Raises UserError where that takes a rerun."""
    _comparable(now, then)
    everything = exact or now.measure == "all" or now.sample == 1.0
    out = Recut(1.0 if everything else now.sample)
    if not everything and not now.sample:
        raise UserError("corpus.sample is 0: no document was measured by all steps", expected="--exact")
    tables = [
        _Table.of(part, i, cut, steps, now, then, seed, everything=everything)
        for i, part in enumerate(json.loads((cut / "parts.json").read_bytes()))
    ]
    for name, corpus in (("now", now), ("then", then)):
        _drop_copies(tables, name, [step for step in corpus.steps if _is_copies(step)])
    for table in tables:
        before, after = table.stays["now"], table.stays["then"]
        out.documents += len(before)
        out.kept += int(before.sum())
        out.kept_then += int(after.sum())
        out.bytes_kept += int(table.bytes[before].sum())
        out.bytes_then += int(table.bytes[after].sum())
        out.unknown += int(table.unknown.sum())
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
    if [step.use for step in now.steps] != [step.use for step in then.steps]:
        raise UserError("the steps are not the same", expected="`pretrain run`, from the first that differs on")
    for i, (one, other) in enumerate(zip(now.steps, then.steps, strict=True)):
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
        elif one.kind == "corpus.dedup" or old.rules() == new.rules():
            raise UserError(f"{what}: no bound changes", expected=f"`pretrain run`, which starts at {one.use}")
        joins = [later.use for later in now.steps[i + 1 :] if later.kind == "corpus.dedup" and not _is_copies(later)]
        if joins:
            said = f"{what}: {joins[0]}, after it, takes out what the documents kept so far repeat"
            raise UserError(said, expected=f"`pretrain run`, which starts at {one.use}")


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

    @classmethod
    def of(
        cls, part: dict, i: int, cut: Path, steps: Steps, now: Corpus, then: Corpus, seed: int, *, everything: bool
    ) -> "_Table":
        verdicts = StepFile(cut / "verdicts" / f"{i:05}.parquet").columns("id", "url", "bytes", "step")
        ids, dropped_by = verdicts["id"].to_pylist(), verdicts["step"].to_pylist()
        share = 1.0 if now.measure == "all" else now.sample
        always = np.array([sampled(one, seed, share) for one in ids], bool)  # measured by every step
        rows = always | everything
        read = np.array([step not in ("read", "extract") for step in dropped_by], bool)
        rows &= read  # a flaw has no measures, and no rule brings it back
        stays = {"now": np.ones(int(rows.sum()), bool), "then": np.ones(int(rows.sum()), bool)}
        unknown, clusters = np.zeros(int(rows.sum()), bool), list[np.ndarray]()
        for (use, name), old, new in zip(part["steps"], now.steps, then.steps, strict=True):
            file = StepFile(steps.root / use / f"{name}.parquet")
            if _is_copies(old):
                found = file.columns("cluster", "alive")
                clusters.append(np.array(found["cluster"].to_pylist(), np.uint64)[rows])
                unknown |= stays["then"] & ~(np.array(found["alive"].to_pylist(), bool) | always)[rows]
                continue
            rules = {"now": [], "then": []} if old.kind == "corpus.dedup" else _rules(old, new)
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
        return cls(
            [ids[row] for row in pick],
            [verdicts["url"][int(row)].as_py() for row in pick],
            np.array(verdicts["bytes"].to_pylist(), np.int64)[rows],
            number(i + 1, pick),
            clusters,
            stays,
            unknown,
        )


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
    """Of each cluster its first `most` survivors stay; of a sample, those that it knows of."""
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

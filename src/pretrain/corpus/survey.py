"""What a corpus holds and what its steps did, gathered from their files for a person to look at."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.extension import names
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Rule
from pretrain.corpus.parts import Account, StepFile, Steps
from pretrain.recipe.schema import Leaf

PARTS = 50  # whose measures and texts are looked at, evenly spread
BINS = 40
NEAR = 3  # samples on either side of a bound
EXCERPT = 600  # characters of a sample
KINDS = ("corpus.filters", "corpus.edits", "corpus.dedup")


@dataclass(frozen=True)
class Sample:
    """A document near a bound."""

    url: str
    value: float
    text: str


@dataclass
class Score:
    """A measure over the documents that a step saw: its values, its bounds, and who stands near them."""

    name: str
    rules: list[Rule]
    values: list[np.ndarray] = field(default_factory=list)
    kept: list[Sample] = field(default_factory=list)
    dropped: list[Sample] = field(default_factory=list)

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts [bins] and edges [bins + 1], the outermost hundredths in the outermost bins, every bound inside."""
        values = np.concatenate(self.values) if self.values else np.zeros(0)
        if not len(values):
            return np.zeros(0), np.zeros(0)
        low, high = np.percentile(values, [0.5, 99.5])
        bounds = [b for rule in self.rules for b in (rule.at_least, rule.at_most) if b is not None and b < 2 * high + 1]
        low, high = min([low, *bounds]), max([high, *bounds])
        high = high if high > low else low + 1
        return np.histogram(np.clip(values, low, high), BINS, (low, high))


@dataclass
class Stage:
    """A step: what it did, and its scores."""

    name: str
    account: Account
    scores: list[Score]


@dataclass
class Survey:
    """All that the page and the terminal show."""

    summary: dict[str, dict]
    stages: list[Stage]
    copies: dict[str, int]  # dropped by the cut, by step
    languages: Counter[str]  # documents kept
    domains: dict[str, Counter[str]]  # "kept" and "dropped"
    clusters: list[tuple[int, list[str]]]  # size and some URLs, the largest first
    parts: int
    looked_at: int
    kept_bytes: int


def survey(folder: Path) -> Survey:
    """Looks at a corpus in the store. Raises UserError where there is none."""
    if not (folder / "parts.json").exists():
        raise UserError("no corpus", where=str(folder), expected="a run directory, or a store/corpus-… folder")
    parts = json.loads((folder / "parts.json").read_bytes())
    key = json.loads((folder / "key.json").read_bytes())["key"]
    steps, cut = Steps(folder.parent / "steps"), Cut(folder)
    stages = [_read_stage(source, parts, steps, key) for source in cut.summary]
    rules = [_rules(step) for step in key["steps"]]
    for i, step in enumerate(key["steps"]):
        scores = {rule.measure: Score(rule.measure, []) for rule in rules[i]}
        for rule in rules[i]:
            scores[rule.measure].rules.append(rule)
        stages.append(Stage(step["use"], Account(), list(scores.values())))
    spread = set(np.linspace(0, len(parts) - 1, min(PARTS, len(parts))).round().astype(int).tolist())
    clusters: dict[int, tuple[int, list[str]]] = {}
    for number, part in enumerate(parts):
        texts = None
        for stage, (use, name) in zip(stages[len(cut.summary) :], part["steps"], strict=True):
            file = StepFile(steps.root / use / f"{name}.parquet")
            stage.account.add(file.account())
            if number in spread:
                texts = texts or _texts(steps, key, part)
                _look(stage, file, texts)
                if "cluster_size" in _columns(file):
                    _clusters(file, texts[0], clusters)
    out = Survey(cut.summary, stages, {}, Counter(), {"kept": Counter(), "dropped": Counter()}, [], len(parts), 0, 0)
    out.looked_at = len(spread)
    out.clusters = sorted(clusters.values(), key=lambda one: -one[0])[:10]
    _count(cut, out, {stage.name for stage in stages})
    return out


def _read_stage(source: str, parts: Sequence[dict], steps: Steps, key: dict) -> Stage:
    account = Account()
    for part in parts:
        if part["source"] == source:
            account.add(_base(steps, key, part).account())
    return Stage(f"read {source}", account, [])


def _base(steps: Steps, key: dict, part: dict) -> StepFile:
    return StepFile(steps.root / f"read-{key['sources'][part['source']]['read']}" / f"{part['base']}.parquet")


def _texts(steps: Steps, key: dict, part: dict) -> tuple[list[str], list[str | None]]:
    found = _base(steps, key, part).columns("url", "text")
    return found["url"].to_pylist(), found["text"].to_pylist()


def _rules(step: dict) -> list[Rule]:
    kind = next((kind for kind in KINDS if step["use"] in names(kind)), KINDS[0])
    if kind == "corpus.dedup":
        return []
    options = {name: value for name, value in step.items() if name not in ("use", "version")}
    return Leaf((kind,), step["use"], options).bind().rules()


def _columns(file: StepFile) -> set[str]:
    import pyarrow.parquet

    return set(pyarrow.parquet.read_schema(file.path).names)


def _look(stage: Stage, file: StepFile, texts: tuple[list[str], list[str | None]]) -> None:
    """Adds a part's values, and replaces samples by nearer ones."""
    if not stage.scores:
        return
    columns = file.columns("alive", "reason", *(score.name for score in stage.scores))
    alive = np.array(columns["alive"].to_pylist(), bool)
    reasons = np.array(columns["reason"].to_pylist(), object)
    seen = alive | np.array([reason is not None for reason in reasons], bool)
    for score in stage.scores:
        values = np.array([np.nan if v is None else v for v in columns[score.name].to_pylist()], float)
        score.values.append(values[seen & ~np.isnan(values)])
        for rule in score.rules:
            for bound in (rule.at_least, rule.at_most):
                if bound is not None:
                    _nearest(score.kept, np.flatnonzero(alive), values, bound, texts)
                    _nearest(score.dropped, np.flatnonzero(reasons == rule.reason), values, bound, texts)


def _nearest(
    into: list[Sample], rows: np.ndarray, values: np.ndarray, bound: float, texts: tuple[list[str], list[str | None]]
) -> None:
    rows = rows[~np.isnan(values[rows])]
    for row in rows[np.argsort(abs(values[rows] - bound), kind="stable")][:NEAR].tolist():
        into.append(Sample(texts[0][row], float(values[row]), (texts[1][row] or "")[:EXCERPT]))
    into.sort(key=lambda one: abs(one.value - bound))
    del into[NEAR:]


def _clusters(file: StepFile, urls: list[str], into: dict[int, tuple[int, list[str]]]) -> None:
    columns = file.columns("cluster", "cluster_size")
    sizes = columns["cluster_size"].to_pylist()
    for row, (cluster, size) in enumerate(zip(columns["cluster"].to_pylist(), sizes, strict=True)):
        if size > 1:
            known = into.setdefault(cluster, (int(size), []))[1]
            if len(known) < NEAR:
                known.append(urls[row])


def _count(cut: Cut, out: Survey, known: set[str]) -> None:
    """Languages, domains and copies, from the verdicts."""
    copies: Counter[str] = Counter()
    for row in cut.verdicts(["url", "split", "step", "reason", "language", "bytes"]):
        kept = row["split"] != "dropped"
        out.domains["kept" if kept else "dropped"][domain(row["url"] or "")] += 1
        if kept:
            out.languages[row["language"] or "not said"] += 1
            out.kept_bytes += row["bytes"]
        elif row["step"] in known and row["reason"] is not None:
            copies[row["step"]] += 1
    marked = {
        stage.name for stage in out.stages if not stage.scores and stage.account.rows_in == stage.account.rows_out
    }
    out.copies = {name: count for name, count in copies.items() if name in marked}


def domain(url: str) -> str:
    """The host of an address, or the first folder of a path."""
    try:
        return (urlsplit(url).hostname or url.partition("/")[0]).removeprefix("www.")
    except ValueError:
        return "broken address"

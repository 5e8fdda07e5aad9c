"""What a corpus holds and what its steps did, gathered from their files for a person to look at."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.extension import names
from pretrain.corpus.cut import Cut, masked
from pretrain.corpus.document import Document, Rule
from pretrain.corpus.parts import Account, StepFile, Steps
from pretrain.corpus.steps import current
from pretrain.recipe.schema import Leaf
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard

PARTS = 50  # whose measures and texts are looked at, evenly spread
BINS = 40
DECADES = 1000  # between the ends of an axis, from which on it is logarithmic
NEAR = 3  # samples on either side of a bound
EXCERPT = 600  # characters of a sample
KINDS = ("corpus.filters", "corpus.edits", "corpus.dedup")
MADE = ("use", "version", "files", "sources")  # what the key says of a step besides its options


@dataclass(frozen=True)
class Sample:
    """A document near a bound."""

    url: str
    value: float
    text: str


@dataclass
class Bound:
    """A bound of a rule, and the documents nearest to it on either side."""

    rule: Rule
    value: float
    kept: list[Sample] = field(default_factory=list)
    dropped: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Bars:
    """Counts of a measure's values between edges; those beyond the outermost edges are apart."""

    counts: np.ndarray  # [bins]
    kept: np.ndarray  # [bins], those of them that every rule holds for
    edges: np.ndarray  # [bins + 1], every bound that drops something among them
    below: int
    above: int
    logarithmic: bool


@dataclass
class Score:
    """A measure over the documents that a step saw: its values, its bounds, and who stands near them."""

    name: str
    rules: list[Rule]
    values: list[np.ndarray] = field(default_factory=list)
    bounds: list[Bound] = field(init=False)

    def __post_init__(self) -> None:
        both = [(rule, bound) for rule in self.rules for bound in (rule.at_least, rule.at_most)]
        self.bounds = [Bound(rule, bound) for rule, bound in both if bound is not None]

    @property
    def lost(self) -> int:
        """Values that a rule does not hold for."""
        return sum(int((~self._held(some)).sum()) for some in self.values)

    def _held(self, values: np.ndarray) -> np.ndarray:
        return np.array([self.holds(value) for value in values.tolist()], bool)

    def holds(self, value: float) -> bool:
        """Whether every rule holds for a value."""
        return all(rule.holds(value) for rule in self.rules)

    def bars(self) -> Bars | None:
        """The histogram; no bar stands on both sides of a bound, and the outermost hundredths stand apart."""
        values = np.concatenate(self.values) if self.values else np.zeros(0)
        if not len(values):
            return None
        low, high = (float(one) for one in np.percentile(values, [0.5, 99.5]))
        reached = [one.value for one in self.bounds if values.min() <= one.value <= values.max()]
        low, high = min([low, *reached]), max([high, *reached])
        high = high if high > low else low + 1
        wide = low > 0 and high / low > DECADES
        grid = np.geomspace(low, high, BINS + 1) if wide else np.linspace(low, high, BINS + 1)
        edges = np.unique([*grid, *reached])
        counts, _ = np.histogram(values, edges)
        kept, _ = np.histogram(values[self._held(values)], edges)  # a value at its bound is inside, on either side
        return Bars(counts, kept, edges, int((values < low).sum()), int((values > high).sum()), wide)


@dataclass
class Hit:
    """An evaluation item that stands in documents: how often, the largest share of its words, and words of that."""

    evaluation: str
    line: int
    documents: int = 0
    share: float = 0.0
    words: str = ""
    urls: list[str] = field(default_factory=list)


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
    tokens: dict[str, Counter[str]]  # "source", "language" and "domain": tokens to train on, where they were made
    hits: list[Hit]  # of evaluation items, by evaluation and line

    def losses(self) -> list[tuple[str, int, int]]:
        """(step, documents still in, documents dropped): reading in one, copies where the cut dropped them, at the end.

        A step for some sources lets those of others pass.
        """
        reading = [stage.account for stage in self.stages if stage.name.startswith("read ")]
        came, stayed = sum(one.rows_in for one in reading), sum(one.rows_out for one in reading)
        out, left = [("reading", came, came - stayed)], stayed
        for stage in self.stages:
            if not stage.name.startswith("read ") and stage.name not in self.copies:
                account = stage.account
                if account.rows_in != account.rows_out or stage.scores:
                    out.append((stage.name, left, account.rows_in - account.rows_out))
                    left -= out[-1][2]
        for name, count in self.copies.items():
            out.append((f"{name} (copies)", left, count))
            left -= count
        return out


def survey(folder: Path, shards: Sequence[Path] = ()) -> Survey:
    """Looks at a corpus in the store, and at folders of its tokens. Raises UserError where there is none."""
    if not (folder / "parts.json").exists():
        raise UserError("no corpus", where=str(folder), expected="a run directory, or a store/corpus-… folder")
    parts = json.loads((folder / "parts.json").read_bytes())
    key = json.loads((folder / "key.json").read_bytes())["key"]
    steps, cut = Steps(folder.parent / "steps"), Cut(folder)
    stages = [_read_stage(source, parts, steps, key) for source in cut.summary]
    rules = [_rules(step) for step in key["steps"]]
    for i, step in enumerate(key["steps"]):
        scores = {rule.measure: [one for one in rules[i] if one.measure == rule.measure] for rule in rules[i]}
        stages.append(Stage(step["use"], Account(), [Score(name, some) for name, some in scores.items()]))
    hits: dict[tuple[str, int], Hit] = {}
    spread = set(np.linspace(0, len(parts) - 1, min(PARTS, len(parts))).round().astype(int).tolist())
    clusters: dict[int, tuple[int, list[str]]] = {}
    for number, part in enumerate(parts):
        texts = None
        of_steps = zip(stages[len(cut.summary) :], key["steps"], strict=True)
        mine = [stage for stage, step in of_steps if part["source"] in step.get("sources", [part["source"]])]
        for stage, (use, name) in zip(mine, part["steps"], strict=True):
            file = StepFile(steps.root / use / f"{name}.parquet")
            stage.account.add(file.account())
            if number in spread:
                texts = texts or _texts(steps, key, part)
                _look(stage, file, texts)
                if "cluster_size" in _columns(file):
                    _clusters(file, texts[0], clusters)
            if "hits" in _columns(file):
                _hits(file, _base(steps, key, part), hits)
    _mask(stages, key)
    out = Survey(
        summary=cut.summary,
        stages=stages,
        copies={},
        languages=Counter(),
        domains={"kept": Counter(), "dropped": Counter()},
        clusters=sorted(clusters.values(), key=lambda one: -one[0])[:10],
        parts=len(parts),
        looked_at=len(spread),
        kept_bytes=0,
        tokens={"source": Counter(), "language": Counter(), "domain": Counter()},
        hits=sorted(hits.values(), key=lambda one: (one.evaluation, one.line)),
    )
    _count(cut, out, {stage.name for stage in stages}, dict(_lengths(shards)))
    return out


def _mask(stages: Sequence[Stage], key: dict) -> None:
    """Samples as the edits that mask personal data leave them, also where a document was dropped before those."""
    edits = [_leaf(step).bind() for step in key["steps"] if step["use"] in names("corpus.edits")]
    masks = [edit for edit in edits if getattr(edit, "masks", False)]
    for bound in (bound for stage in stages for score in stage.scores for bound in score.bounds):
        for side in (bound.kept, bound.dropped):
            for i, sample in enumerate(side):
                document = Document(id="", source="", url=sample.url, text=sample.text)
                side[i] = replace(sample, text=masked(document, masks)[:EXCERPT])


def _lengths(folders: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """(document's id, its tokens) of all shards."""
    for folder in folders:
        catalogue = Catalogue.load(folder)
        for entry in catalogue.shards:
            shard = Shard(Path(catalogue.place(entry)))
            yield from zip(shard.ids, np.diff(shard.bounds).tolist(), strict=True)


def _hits(file: StepFile, base: StepFile, into: dict[tuple[str, int], Hit]) -> None:
    """Adds which documents of a part hold which evaluation items."""
    found = file.columns("hits")["hits"].to_pylist()
    rows = [row for row, said in enumerate(found) if said]
    urls = base.columns("url")["url"] if rows else []
    for row in rows:
        for said in json.loads(found[row]):
            hit = into.setdefault((said["evaluation"], said["line"]), Hit(said["evaluation"], said["line"]))
            hit.documents += 1
            if len(hit.urls) < NEAR and urls[row].as_py() not in hit.urls:
                hit.urls.append(urls[row].as_py())
            if said["share"] > hit.share:
                hit.share, hit.words = said["share"], said["words"]


def _read_stage(source: str, parts: Sequence[dict], steps: Steps, key: dict) -> Stage:
    account = Account()
    for part in parts:
        if part["source"] == source:
            account.add(_base(steps, key, part).account())
    return Stage(f"read {source}", account, [])


def _base(steps: Steps, key: dict, part: dict) -> StepFile:
    return StepFile(steps.root / f"read-{key['sources'][part['source']]['read']}" / f"{part['base']}.parquet")


def _texts(steps: Steps, key: dict, part: dict) -> tuple[list[str], list[str | None]]:
    """URLs and texts of a part as its edits left them: what was redacted is shown to nobody."""
    base = _base(steps, key, part)
    files = [StepFile(steps.root / use / f"{name}.parquet") for use, name in part["steps"]]
    edited = [file for file in files if "text" in _columns(file)]
    texts = [None if one is None else one.text for found, _ in current(base, edited, None) for one in found]
    return base.columns("url")["url"].to_pylist(), texts


def _rules(step: dict) -> list[Rule]:
    kind = next((kind for kind in KINDS if step["use"] in names(kind)), KINDS[0])
    return [] if kind == "corpus.dedup" else _leaf(step).bind().rules()


def _leaf(step: dict) -> Leaf:
    kind = next((kind for kind in KINDS if step["use"] in names(kind)), KINDS[0])
    return Leaf((kind,), step["use"], {name: value for name, value in step.items() if name not in MADE})


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
        for bound in score.bounds:
            outside = values < bound.value if bound.rule.at_least == bound.value else values > bound.value
            _nearest(bound.kept, np.flatnonzero(alive), values, bound.value, texts)
            lost = np.flatnonzero((reasons == bound.rule.reason) & outside)
            _nearest(bound.dropped, lost, values, bound.value, texts)


def _nearest(
    into: list[Sample], rows: np.ndarray, values: np.ndarray, bound: float, texts: tuple[list[str], list[str | None]]
) -> None:
    rows = rows[~np.isnan(values[rows])]
    for row in rows[np.argsort(abs(values[rows] - bound), kind="stable")][:NEAR].tolist():
        into.append(Sample(texts[0][row], float(values[row]), (texts[1][row] or "")[: 2 * EXCERPT]))
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


def _count(cut: Cut, out: Survey, known: set[str], lengths: Mapping[str, int]) -> None:
    """Languages, domains and copies, from the verdicts; tokens where documents have them."""
    copies: Counter[str] = Counter()
    for row in cut.verdicts(["id", "source", "url", "split", "step", "reason", "language", "bytes"]):
        kept, host = row["split"] != "dropped", domain(row["url"] or "")
        out.domains["kept" if kept else "dropped"][host] += 1
        if count := lengths.get(row["id"]):
            out.tokens["source"][row["source"]] += count
            out.tokens["language"][row["language"] or "not said"] += count
            out.tokens["domain"][host] += count
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

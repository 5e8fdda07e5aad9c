"""From a recipe's sources to a cut: which tasks there are, in which order, and which of them are done already."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.base.extension import find, leaf
from pretrain.base.files import MANIFEST, manifest_digest, read_manifest, write
from pretrain.corpus.clusters import Clustering
from pretrain.corpus.cut import (
    CUT_VERSION,
    RANKED,
    Chain,
    HoldOut,
    cluster_draws,
    extremes,
    gather,
    judge,
    lose,
    member_draws,
    rank,
    summarise,
    write_index,
)
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.exchange import ranges
from pretrain.corpus.joins import PIECES, mark, repeated, take_out, write_groups, write_keys, write_pieces
from pretrain.corpus.parts import Account, Part, StepFile, Steps, split
from pretrain.corpus.read_part import READ_VERSION, read_part
from pretrain.corpus.sources import SourceFile, source_file
from pretrain.corpus.steps import Step, run_steps
from pretrain.corpus.task import Failure, Journal, Pool, Task
from pretrain.recipe.corpus import Corpus, Source
from pretrain.recipe.schema import Leaf

KEPT_BYTES = 64 * 2**20  # of text in a file of kept documents


def version_of(step: Leaf) -> int:
    """The version of a leaf's code: VERSION in its file, 1 where it says none."""
    return getattr(find(step.kind, step.use), "VERSION", 1)


def settings(step: Leaf) -> dict[str, object]:
    """A leaf as it goes into a key: name, version, options; a file that an option names goes by its name and content.

    The convention: an option that names files has `path=True` in its field's `recipe.schema.key`; it is then relative
    to the file that says it, and a changed file makes another key. Raises UserError where a file is missing.
    """
    named = {name: _named(value) for name, value in step.paths().items()}
    return {"use": step.use, "version": version_of(step), **step.options, **named}


def _named(value: object) -> object:
    if isinstance(value, tuple):
        return [_named(one) for one in value]
    path = Path(str(value))
    if not path.is_absolute():
        return value  # a word, such as "langid"
    if not path.exists():
        raise UserError("no such file", where=str(path), expected="a file that an option of a step names")
    if (path / MANIFEST).is_file():  # an earlier corpus
        return [path.name, manifest_digest(read_manifest(path))]
    return [path.name, source_file(path, path.name).digest]


def made_of(corpus: Corpus, files: Mapping[str, Sequence[SourceFile]], seed: int) -> dict[str, object]:
    """All that a cut depends on."""
    sources = {
        one.name: {**_reading(one), "files": {file.url: file.digest for file in files[one.name]}}
        for one in corpus.sources
    }
    steps = [settings(step) for step in corpus.steps]
    cut = {"held_out": corpus.held_out, "measure": corpus.measure, "dropped_text": corpus.dropped_text}
    return {"version": CUT_VERSION, "seed": seed, **cut, "sources": sources, "steps": steps}


def _reading(source: Source) -> dict[str, object]:
    reading: dict[str, object] = {"license": source.license, "version": READ_VERSION, "read": settings(source.reader)}
    if getattr(leaf(source.reader.kind, source.reader.use), "payloads", False):
        reading["extract"] = settings(source.extract)
    return reading


@dataclass
class Build:
    """Makes a cut in a folder; the files of its steps lie in `steps` and are used again."""

    corpus: Corpus
    seed: int
    steps: Steps
    pool: Pool
    report: Callable[[str], None]
    failures: list[Failure] = field(default_factory=list)

    @property
    def sample(self) -> float:
        """The share of documents that every step measures."""
        return 1.0 if self.corpus.measure == "all" else self.corpus.sample

    def run(self, files: Mapping[str, Sequence[SourceFile]], folder: Path) -> None:
        """Reads, filters, joins and cuts. Raises UserError."""
        chains = self._read(files)
        local: list[tuple[Leaf, Step]] = []
        marks: list[tuple[Leaf, list[StepFile], list[StepFile]]] = []
        for step in self.corpus.steps:
            if step.kind != "corpus.dedup":
                local.append((step, Step(step.use, step.bind())))
                continue
            chains, local = self._local(chains, local), []
            if hasattr(leaf(step.kind, step.use), "pieces"):
                chains = self._pieces(chains, step)
            else:
                keys = self._keys(chains, step, f"{step.use} keys")
                chains = self._mark(chains, step, keys)
                marks.append((step, [chain.files[-1][1] for chain in chains], keys))
        chains = self._local(chains, local)
        self._cut(chains, marks, folder)

    def _do(self, name: str, tasks: Sequence[tuple[StepFile, Task]]) -> list[Failure]:
        """Runs the tasks whose files are not there yet."""
        todo = [task for file, task in tasks if not file.done()]
        if not todo:
            return []
        return [one for one in self.pool.run(todo) if isinstance(one, Failure)]

    def _must(self, tasks: Sequence[Task]) -> list[object]:
        """Runs tasks that the whole corpus hangs on. Raises UserError where one cannot be done."""
        results = self.pool.run(tasks)
        for one in results:
            if isinstance(one, Failure):
                raise UserError(f"{one.task.name} failed three times: {one.reason.strip().splitlines()[-1]}")
        return results

    def _read(self, files: Mapping[str, Sequence[SourceFile]]) -> list[Chain]:
        tasks, chains, parts = [], list[Chain](), list[Part]()
        for source in self.corpus.sources:
            reader, extractor, reading = source.reader.bind(), source.extract.bind(), _reading(source)
            for part in split(source.name, files[source.name]):
                file = self.steps.file(
                    f"read-{source.reader.use}", {"source": source.name, **reading, "files": part.inputs}
                )
                arguments = (part, reader, extractor, source.license, file)
                tasks.append((file, Task(f"reading {source.name}", read_part, arguments)))
                chains.append(Chain(len(chains) + 1, source.name, file))
                parts.append(part)
        failed = self._do("read", tasks)
        if len(failed) > self.corpus.failed_share * len(parts):
            one = failed[0]
            raise UserError(
                f"{one.task.name} failed three times: {one.reason.strip().splitlines()[-1]}",
                where=_where(one),
                expected=f"at most corpus.failed_share = {self.corpus.failed_share} of the parts",
            )
        for one in failed:
            part, _, _, license, file = one.task.arguments
            read_part(part, _SetAside(), _SetAside(), license, file, Journal())
            self.report(f"{one.task.name}: set aside {_where(one)}: {one.reason.strip().splitlines()[-1]}")
        for source in self.corpus.sources:
            accounts = _total([chain.base for chain in chains if chain.source == source.name])
            if not accounts.rows_out:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in accounts.reasons.most_common(3))
                raise UserError(
                    f"corpus.sources {source.name!r}: no document in {len(files[source.name])} files ({reasons})",
                    expected="text",
                )
        return chains

    def _local(self, chains: list[Chain], steps: Sequence[tuple[Leaf, Step]]) -> list[Chain]:
        """Consecutive filters and edits; a part's missing files are made in one go."""
        if not steps:
            return chains
        tasks, after = [], []
        named = [settings(made) for made, _ in steps]
        for chain in chains:
            todo: list[tuple[Step, StepFile]] = []
            start = chain
            for (made, step), what in zip(steps, named, strict=True):
                file = self.steps.file(made.use, [chain.key, what, self.sample, self.seed])
                if todo or not file.done():
                    todo.append((step, file))
                chain = chain.then(made.use, file, edits=step.edits)
                if not todo:
                    start = chain
            arguments = (start.base, start.edited, start.last, todo, self.sample, self.seed)
            if todo:
                tasks.append((todo[-1][1], Task(", ".join(step.use for step, _ in todo), run_steps, arguments)))
            after.append(chain)
        self._must([task for _, task in tasks])
        for number, (made, _) in enumerate(steps):
            self._say(made.use, [chain.files[number - len(steps)][1] for chain in after])
        return after

    def _say(self, name: str, files: Sequence[StepFile]) -> None:
        total = _total(files)
        dropped = total.rows_in - total.rows_out
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in total.reasons.most_common(3))
        changed = total.bytes_in - total.bytes_out if not dropped else 0
        said = f"{total.rows_in:,} → {total.rows_out:,} documents" + (f" ({reasons})" if dropped else "")
        if total.rows_in and dropped > self.corpus.most_dropped * total.rows_in:
            said += f"; WARNING: more than corpus.most_dropped = {self.corpus.most_dropped} of them"
        if not dropped and not changed and not name.startswith(("exact", "minhash", "domain")):
            said += "; it changed nothing"
        self.report(f"{name}: {said}")

    def _keys(self, chains: Sequence[Chain], step: Leaf, name: str) -> list[StepFile]:
        bound, what, out, tasks = step.bind(), settings(step), [], []
        for chain in chains:
            scope = chain.source if getattr(bound, "scope", "all") == "source" else ""
            options = [what, scope, self.sample, chain.number]
            file = self.steps.file(f"{step.use}-keys", [chain.key, *options], ".npy")
            arguments = (chain.base, chain.edited, chain.last, bound, scope, chain.number, self.sample, self.seed, file)
            tasks.append((file, Task(name, write_keys, arguments)))
            out.append(file)
        self._must([task for file, task in tasks if not file.done()])
        return out

    def _mark(self, chains: Sequence[Chain], step: Leaf, keys: Sequence[StepFile]) -> list[Chain]:
        earlier = [file for path in getattr(step.bind(), "against", ()) for file in _index(Path(path), step)]
        names = [*(file.key for file in keys), *(file.entry()["digest"] for file in earlier)]
        members = Clustering(self.steps, f"{step.use}-clusters", names, self._must).members([*keys, *earlier])
        tasks, after = [], []
        for chain in chains:
            file = self.steps.file(step.use, [chain.key, names, chain.number])
            arguments = (chain.base, chain.last, members, chain.number, file)
            tasks.append((file, Task(step.use, mark, arguments)))
            after.append(chain.then(step.use, file))
        self._must([task for file, task in tasks if not file.done()])
        return after

    def _pieces(self, chains: Sequence[Chain], step: Leaf) -> list[Chain]:
        bound = step.bind()
        options = [settings(step)]
        pieces = [
            self.steps.file(f"{step.use}-pieces", [chain.key, *options, chain.number], ".npy") for chain in chains
        ]
        self._must(
            [
                Task(step.use, write_pieces, (chain.base, chain.edited, chain.last, bound, chain.number, file))
                for chain, file in zip(chains, pieces, strict=True)
                if not file.done()
            ]
        )
        names = [file.key for file in pieces]
        count = ranges(sum(file.entry()["account"]["rows_in"] for file in pieces), PIECES.itemsize)
        found = [
            self.steps.file(f"{step.use}-repeated", [names, bound.most, part, count], ".npy") for part in range(count)
        ]
        self._must(
            [
                Task(step.use, repeated, (pieces, part, count, bound.most, file))
                for part, file in enumerate(found)
                if not file.done()
            ]
        )
        tasks, after = [], []
        for chain in chains:
            file = self.steps.file(step.use, [chain.key, names, *options, chain.number])
            arguments = (chain.base, chain.edited, chain.last, bound, found, chain.number, file)
            tasks.append((file, Task(step.use, take_out, arguments)))
            after.append(chain.then(step.use, file, edits=True))
        self._must([task for file, task in tasks if not file.done()])
        self._say(step.use, [chain.files[-1][1] for chain in after])
        return after

    def _cut(
        self, chains: list[Chain], marks: Sequence[tuple[Leaf, list[StepFile], list[StepFile]]], folder: Path
    ) -> None:
        """Which copies stay, what is held out, and the verdicts; its files are the cut's own."""
        scratch = Steps(folder / "scratch")
        lost: list[tuple[str, str, list[StepFile]]] = []
        for step, files, _ in marks:
            bound, name = step.bind(), f"{step.use}-{len(lost)}"
            before = [one for _, _, one in lost]
            ranked = [scratch.file(f"{name}-ranked", chain.number, ".npy") for chain in chains]
            self._must(
                [
                    Task(step.use, rank, (chain, file, bound.keep, before, out))
                    for chain, file, out in zip(chains, files, ranked, strict=True)
                ]
            )
            losers = self._ranges(scratch, f"{name}-lost", ranked, lose, bound.most)
            lost.append((step.use, bound.reason, losers))
            gone = sum(file.entry()["account"]["rows_in"] for file in losers)
            self.report(f"{step.use}: {gone:,} documents are copies of others" if gone else f"{step.use}: no copies")
        drawn = self._draws(scratch, chains, marks, [one for _, _, one in lost])
        few = 1 + len(self.corpus.sources)
        ends = self._must([Task("held-out split", extremes, (chain, drawn, few)) for chain in chains])
        sources = [chain.source for chain in chains]
        hold_out = HoldOut.of(self.corpus.held_out, list(zip(sources, ends, strict=True)))
        (folder / "verdicts").mkdir()
        verdicts = [StepFile(folder / "verdicts" / f"{chain.number - 1:05}.parquet") for chain in chains]
        kept = [scratch.file("kept", chain.number) for chain in chains]
        text = self.corpus.dropped_text
        self._must(
            [
                Task("cut", judge, (chain, lost, drawn, hold_out, self.seed, text, verdict, stays))
                for chain, verdict, stays in zip(chains, verdicts, kept, strict=True)
            ]
        )
        self._must(
            [
                Task("index", write_index, (key, verdict, StepFile(folder / "index" / step.use / f"{i:05}.npy")))
                for step, _, keys in marks
                for i, (key, verdict) in enumerate(zip(keys, verdicts, strict=True))
            ]
        )
        gathered = self._gather(chains, kept, folder)
        shutil.rmtree(folder / "scratch")
        steps = [{"source": one.source, "base": one.base.key, "steps": _paths(one)} for one in chains]
        write(folder / "parts.json", json.dumps(steps, indent=1))
        write(folder / "summary.json", json.dumps(summarise(folder, gathered), indent=1, ensure_ascii=False))

    def _ranges(
        self, scratch: Steps, name: str, inputs: Sequence[StepFile], function: Callable, *more: object
    ) -> list[StepFile]:
        count = ranges(sum(file.entry()["account"]["rows_in"] for file in inputs), RANKED.itemsize)
        out = [scratch.file(name, [part, count], ".npy") for part in range(count)]
        self._must([Task(name, function, (inputs, part, count, *more, file)) for part, file in enumerate(out)])
        return out

    def _draws(
        self,
        scratch: Steps,
        chains: Sequence[Chain],
        marks: Sequence[tuple[Leaf, list[StepFile], list[StepFile]]],
        lost: Sequence[Sequence[StepFile]],
    ) -> list[StepFile]:
        """Every survivor's draw; near copies, and the documents of a group, share theirs."""
        near = next((keys for step, _, keys in marks if step.use == "minhash" and step.bind().scope == "all"), None)
        split = "held-out split: near copies"
        keys = near if near is not None else self._keys(chains, Leaf(("corpus.dedup",), "minhash"), split)
        groups = [self.steps.file("groups", [chain.base.key, chain.number], ".npy") for chain in chains]
        self._must(
            [
                Task("groups", write_groups, (chain.base, chain.number, file))
                for chain, file in zip(chains, groups, strict=True)
                if not file.done()
            ]
        )
        all_keys = [*keys, *groups]
        names = [file.key for file in all_keys]
        members = Clustering(self.steps, "held-out-clusters", names, self._must).members(all_keys)
        ranked = [scratch.file("members", chain.number, ".npy") for chain in chains]
        self._must(
            [
                Task("held-out split", member_draws, (chain, members, lost, file))
                for chain, file in zip(chains, ranked, strict=True)
            ]
        )
        return self._ranges(scratch, "draws", ranked, cluster_draws, self.seed)

    def _gather(self, chains: Sequence[Chain], kept: Sequence[StepFile], folder: Path) -> dict[str, list[dict]]:
        out: dict[str, list[dict]] = {}
        for source in self.corpus.sources:
            mine = [file for chain, file in zip(chains, kept, strict=True) if chain.source == source.name]
            count = max(1, -(-_total(mine).bytes_out // KEPT_BYTES))
            there = folder / "kept" / source.name
            there.mkdir(parents=True)
            tasks = [Task("cut", gather, (mine, part, count, there / f"{part:05}.parquet")) for part in range(count)]
            out[source.name] = self._must(tasks)  # type: ignore[assignment]
        return out


class _SetAside:
    """Reads nothing of a file that failed three times."""

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        yield Flaw(-1, file.url, "set aside after three failures")

    def extract(self, record: Record) -> Record | Flaw:
        raise AssertionError("it reads no record")


def _index(folder: Path, step: Leaf) -> list[StepFile]:
    """An earlier corpus' index, if it was made with the same keys. Raises UserError."""
    try:
        table = json.loads((folder / "key.json").read_bytes())["key"]["steps"]
    except (OSError, ValueError, KeyError):
        raise UserError("no corpus", where=str(folder), expected="a store/corpus-… folder") from None
    made = next((one for one in table if one["use"] == step.use), None)
    if made is None:
        raise UserError(f"it has no index of {step.use}", where=str(folder), expected=f"{step.use} among its steps")
    free = ("against", "keep", "most")
    then, now = ({k: v for k, v in one.items() if k not in free} for one in (made, settings(step)))
    if then != now:
        raise UserError(f"its {step.use} has other options", where=str(folder), expected=json.dumps(now))
    return [StepFile(path) for path in sorted((folder / "index" / step.use).glob("*.npy"))]


def _paths(chain: Chain) -> list[list[str]]:
    return [[step, file.key] for step, file in chain.files]


def _total(files: Sequence[StepFile]) -> Account:
    total = Account()
    for file in files:
        total.add(file.account())
    return total


def _where(failure: Failure) -> str:
    part: Part = failure.task.arguments[0]
    number, item, _ = failure.spot
    return f"{part.files[number].url}, item {item}" if 0 <= number < len(part.files) else part.files[0].url

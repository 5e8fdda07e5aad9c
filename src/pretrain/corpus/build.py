"""From a recipe's sources to a cut: which tasks there are, in which order, and which of them are done already."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.base.files import digest_of, write
from pretrain.corpus import parts
from pretrain.corpus.alike import join_alike, write_shingles
from pretrain.corpus.clusters import Clustering
from pretrain.corpus.cut import (
    ASIDE,
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
from pretrain.corpus.joins import (
    EDITS,
    MARKS,
    PIECES,
    SET_ASIDE,
    mark,
    repeated,
    set_aside,
    take_out,
    write_groups,
    write_keys,
    write_pieces,
)
from pretrain.corpus.made_of import reading_of, settings
from pretrain.corpus.parts import Account, Part, Span, StepFile, Steps, split
from pretrain.corpus.read_part import read_part
from pretrain.corpus.sources import SourceFile
from pretrain.corpus.spans import read_spans, write_spans
from pretrain.corpus.steps import Step, run_steps
from pretrain.corpus.task import Failure, Journal, Pool, Task
from pretrain.events.kinds import Event, Notice
from pretrain.recipe.corpus import Corpus, CorpusStep, Source
from pretrain.recipe.schema import Leaf

WHOLE = "a sound disk with room: it is done for the whole corpus and no part can be set aside; run again to go on"
KEPT_BYTES = 64 * 2**20  # of text in a file of kept documents


@dataclass(frozen=True)
class _Marks:
    """What a step that finds copies made of the parts that it is for, by their places."""

    step: CorpusStep
    files: dict[int, StepFile]
    keys: dict[int, StepFile]

    def of_all(self) -> bool:
        """Whether it holds all near copies of the corpus."""
        return self.step.leaf.use == "minhash" and not self.step.sources and self.step.leaf.bind().scope == "all"


@dataclass
class Build:
    """Makes a cut in a folder; the files of its steps lie in `steps` and are used again."""

    corpus: Corpus
    seed: int
    steps: Steps
    pool: Pool
    report: Callable[[Event], None]
    units: list[Part] = field(default_factory=list)
    aside: dict[int, str] = field(default_factory=dict)  # parts by place, and why they failed
    made: set[StepFile] = field(default_factory=set)  # files that were not there before

    @property
    def sample(self) -> float:
        """The share of documents that every step measures."""
        return 1.0 if self.corpus.measure == "all" else self.corpus.sample

    def run(self, files: Mapping[str, Sequence[SourceFile]], folder: Path) -> None:
        """Reads, filters, joins and cuts. Raises UserError."""
        chains = self._read(files)
        local, marks = list[CorpusStep](), list[_Marks]()
        for step in self.corpus.steps:
            if step.leaf.kind != "corpus.dedup":
                local.append(step)
                continue
            chains, local = self._local(chains, local), []
            if hasattr(leaf(step.leaf.kind, step.leaf.use), "pieces"):
                chains = self._pieces(chains, step)
            else:
                keys, failed = self._keys(chains, step, f"{step.leaf.use} keys")
                chains = self._mark(chains, step, keys, failed)
                marked = {i: chain.files[-1][1] for i, chain in enumerate(chains) if step.takes(chain.source)}
                marks.append(_Marks(step, marked, keys))
                total = _total(list(marked.values()))
                said = f"{total.rows_in:,} documents, {total.copies:,} of them with copies, which the cut drops"
                said += "; reused" if self.made.isdisjoint(marked.values()) else ""
                self.report(Notice("info", f"{step.leaf.use}: {said}"))
        chains = self._local(chains, local)
        self._cut(chains, marks, folder)

    def _must(self, tasks: Sequence[Task]) -> list[Any]:
        """Runs tasks that the whole corpus hangs on. Raises UserError where one cannot be done.

        A range of keys holds some of every part: without it, copies would stay that the others know of.
        """
        results = self.pool.run(tasks)
        for one in results:
            if isinstance(one, Failure):
                mine = next((self.units[a.number - 1] for a in one.task.arguments if isinstance(a, Chain)), None)
                where = "a range of all documents" if mine is None else place_of(mine, one)
                raise UserError(f"{one.task.name} failed three times: {_why(one)}", where=where, expected=WHOLE)
        return results

    def _try(self, tasks: Sequence[tuple[int, StepFile, Task]]) -> set[int]:
        """Runs tasks of parts, by place, whose files are not there yet; returns the parts to set aside.

        Raises UserError where more than corpus.failed_share of the parts failed three times.
        """
        self.made.update(file for _, file, _ in tasks if not file.done())
        todo = [(part, task) for part, file, task in tasks if file in self.made]
        results = self.pool.run([task for _, task in todo]) if todo else []
        failed = {part: one for (part, _), one in zip(todo, results, strict=True) if isinstance(one, Failure)}
        for part, one in failed.items():
            where = place_of(self.units[part], one)
            self.aside[part] = f"{one.task.name}, {where}: {_why(one)}"
            if len(self.aside) > self.corpus.failed_share * len(self.units):
                share = f"at most corpus.failed_share = {self.corpus.failed_share} of the parts"
                raise UserError(f"{one.task.name} failed three times: {_why(one)}", where=where, expected=share)
            self.report(Notice("warning", f"set aside: {self.aside[part]}"))
        return set(failed)

    def _set_aside(self, chain: Chain, steps: Sequence[tuple[str, pa.Schema, bool]]) -> Chain:
        """Drops what is left of a part, in files that no run takes for those of the steps: the next one tries again."""
        made = [self.steps.file(use, [chain.key, use, i, SET_ASIDE]) for i, (use, _, _) in enumerate(steps)]
        tables = [(schema, file) for (_, schema, _), file in zip(steps, made, strict=True)]
        self._must([Task("set aside", set_aside, (chain.base, chain.last, chain.number, tables))])
        for (use, _, edits), file in zip(steps, made, strict=True):
            chain = chain.then(use, file, edits=edits)
        return chain

    def _spans(self, source: Source, files: Sequence[SourceFile]) -> dict[str, list[Span]]:
        """Where the large files of a source are cut, by URL; one that cannot be is read as a whole."""
        reader, what = source.reader.bind(), settings(source.reader)
        if not hasattr(reader, "spans"):
            return {}
        some, size = [file for file in files if parts.large(file)], parts.PART_BYTES
        made = [self.steps.file(f"spans-{source.reader.use}", [what, file.digest, size], ".npy") for file in some]
        tasks = [
            Task(f"looking through {file.url}", write_spans, (file, reader, size, out))
            for file, out in zip(some, made, strict=True)
            if not out.done()
        ]
        self.pool.run(tasks)
        return {file.url: read_spans(out) for file, out in zip(some, made, strict=True) if out.done()}

    def _read(self, files: Mapping[str, Sequence[SourceFile]]) -> list[Chain]:
        tasks, chains = list[tuple[int, StepFile, Task]](), list[Chain]()
        for source in self.corpus.sources:
            reader, extractor, reading = source.reader.bind(), source.extract.bind(), reading_of(source)
            for part in split(source.name, files[source.name], self._spans(source, files[source.name])):
                file = self.steps.file(
                    f"read-{source.reader.use}", {"source": source.name, **reading, "files": part.inputs}
                )
                arguments = (part, reader, extractor, source.license, file)
                tasks.append((len(chains), file, Task(f"reading {source.name}", read_part, arguments)))
                chains.append(Chain(len(chains) + 1, source.name, file))
                self.units.append(part)
        for i in self._try(tasks):
            part, _, _, license, file = tasks[i][2].arguments
            aside = StepFile(file.path.with_stem(digest_of([file.key, SET_ASIDE])))
            read_part(part, _SetAside(), _SetAside(), license, aside, Journal())
            chains[i] = Chain(chains[i].number, part.source, aside)
        for source in self.corpus.sources:
            mine = [chain.base for chain in chains if chain.source == source.name]
            if not (account := _total(mine)).rows_out:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in account.reasons.most_common(3))
                raise UserError(
                    f"corpus.sources {source.name!r}: no document in {len(files[source.name])} files ({reasons})",
                    expected="text",
                )
            self._say(f"reading {source.name}", account, acts=False, again=self.made.isdisjoint(mine))
        return chains

    def _local(self, chains: list[Chain], steps: Sequence[CorpusStep]) -> list[Chain]:
        """Consecutive filters and edits; a part's missing files are made in one go."""
        if not steps:
            return chains
        tasks, begun, after = list[tuple[int, StepFile, Task]](), [], []
        named = [(one, Step(one.leaf.use, one.leaf.bind()), settings(one.leaf)) for one in steps]
        for i, chain in enumerate(chains):
            todo: list[tuple[Step, StepFile]] = []
            start = chain
            for step, what in ((step, what) for one, step, what in named if one.takes(chain.source)):
                file = self.steps.file(step.use, [chain.key, what, self.sample, self.seed])
                if todo or not file.done():
                    todo.append((step, file))
                    self.made.add(file)
                chain = chain.then(step.use, file, edits=step.edits)
                if not todo:
                    start = chain
            arguments = (start.base, start.edited, start.last, todo, self.sample, self.seed)
            if todo:
                gpu = any(getattr(step.leaf, "gpu", False) for step, _ in todo)
                task = Task(", ".join(step.use for step, _ in todo), run_steps, arguments, gpu)
                tasks.append((i, todo[0][1], task))
            begun.append((start, todo))
            after.append(chain)
        for i in self._try(tasks):
            start, todo = begun[i]
            after[i] = self._set_aside(start, [(step.use, step.schema(), step.edits) for step, _ in todo])
        made: list[list[StepFile]] = [[] for _ in steps]
        for before, chain in zip(chains, after, strict=True):
            taken = [files for one, files in zip(steps, made, strict=True) if one.takes(chain.source)]
            for files, (_, file) in zip(taken, chain.files[len(before.files) :], strict=True):
                files.append(file)
        for one, files in zip(steps, made, strict=True):
            self._say(one.leaf.use, _total(files), again=self.made.isdisjoint(files))
        return after

    def _say(self, name: str, total: Account, *, acts: bool = True, again: bool = False) -> None:
        """What a step did in a line; a warning where it dropped too much, or did nothing though it is there to act.

        With `again` all of it was there already.
        """
        dropped = total.rows_in - total.rows_out
        said = [f"{total.rows_in:,} → {total.rows_out:,} documents"]
        if dropped:
            said[0] += f" ({', '.join(f'{count:,} {reason}' for reason, count in total.reasons.most_common(3))})"
        if total.languages:
            said.append(f"languages: {', '.join(f'{one} {count:,}' for one, count in total.languages.most_common(8))}")
        much = bool(total.rows_in) and dropped > self.corpus.most_dropped * total.rows_in
        idle = acts and bool(total.rows_in) and not dropped and not total.changed
        if much:
            said.append(f"more than corpus.most_dropped = {self.corpus.most_dropped} of them are gone")
        if idle:
            said.append("it changed nothing")
        said += ["reused"] if again else []
        self.report(Notice("warning" if much or idle else "info", f"{name}: {'; '.join(said)}"))

    def _keys(self, chains: Sequence[Chain], step: CorpusStep, name: str) -> tuple[dict[int, StepFile], set[int]]:
        """Keys of every part that the step is for, by its place, and the parts to set aside."""
        use, bound, what = step.leaf.use, step.leaf.bind(), settings(step.leaf)
        tasks = list[tuple[int, StepFile, Task]]()
        for i, chain in enumerate(chains):
            if step.takes(chain.source):
                scope = chain.source if getattr(bound, "scope", "all") == "source" else ""
                options = [what, scope, self.sample, chain.number]
                file = self.steps.file(f"{use}-keys", [chain.key, *options], ".npy")
                before = (chain.base, chain.edited, chain.last)
                arguments = (*before, bound, scope, chain.number, self.sample, self.seed, file)
                tasks.append((i, file, Task(name, write_keys, arguments)))
        failed = self._try(tasks)
        return {i: file for i, file, _ in tasks if i not in failed}, failed

    def _mark(
        self, chains: Sequence[Chain], step: CorpusStep, keys: Mapping[int, StepFile], failed: set[int]
    ) -> list[Chain]:
        use = step.leaf.use
        earlier = [file for path in getattr(step.leaf.bind(), "against", ()) for file in _index(Path(path), step.leaf)]
        join, more = self._alike(chains, step.leaf, keys)
        failed, mine = failed | more, [file for i, file in keys.items() if i not in more]
        names = [*(file.key for file in mine), *(file.entry()["digest"] for file in earlier)]
        members = Clustering(self.steps, f"{use}-clusters", names, self._must).members([*mine, *earlier], join)
        tasks, after = list[tuple[int, StepFile, Task]](), list(chains)
        for i in keys.keys() - more:
            chain = chains[i]
            file = self.steps.file(use, [chain.key, names, chain.number])
            tasks.append((i, file, Task(use, mark, (chain.base, chain.last, members, chain.number, file))))
            after[i] = chain.then(use, file)
        for i in failed | self._try(sorted(tasks, key=lambda one: one[0])):
            after[i] = self._set_aside(chains[i], [(use, MARKS, False)])
        return after

    def _alike(
        self, chains: Sequence[Chain], step: Leaf, keys: Mapping[int, StepFile]
    ) -> tuple[Callable | None, set[int]]:
        """What joins the candidates of a step that verifies them, by their shingles; and the parts to set aside."""
        bound, what, tasks = step.bind(), settings(step), list[tuple[int, StepFile, Task]]()
        if getattr(bound, "verify", None) is None:
            return None, set()
        for i in keys:
            chain = chains[i]
            file = self.steps.file(f"{step.use}-shingles", [chain.key, what, self.sample, self.seed], ".npy")
            arguments = (chain.base, chain.edited, chain.last, bound, self.sample, self.seed, file)
            tasks.append((i, file, Task(f"{step.use} shingles", write_shingles, arguments)))
        failed = self._try(tasks)
        files = {chains[i].number: file for i, file, _ in tasks if i not in failed}
        return partial(join_alike, files, bound.verify), failed

    def _pieces(self, chains: Sequence[Chain], step: CorpusStep) -> list[Chain]:
        use, bound, what = step.leaf.use, step.leaf.bind(), settings(step.leaf)
        tasks, after = list[tuple[int, StepFile, Task]](), list(chains)
        for i, chain in enumerate(chains):
            if step.takes(chain.source):
                file = self.steps.file(f"{use}-pieces", [chain.key, what, chain.number], ".npy")
                arguments = (chain.base, chain.edited, chain.last, bound, chain.number, file)
                tasks.append((i, file, Task(use, write_pieces, arguments)))
        failed = self._try(tasks)
        pieces = {i: file for i, file, _ in tasks if i not in failed}
        names = [file.key for file in pieces.values()]
        count = ranges(sum(file.entry()["account"]["rows_in"] for file in pieces.values()), PIECES.itemsize)
        found = [self.steps.file(f"{use}-repeated", [names, bound.most, part, count], ".npy") for part in range(count)]
        self._must(
            [
                Task(use, repeated, (list(pieces.values()), part, count, bound.most, file))
                for part, file in enumerate(found)
                if not file.done()
            ]
        )
        tasks = []
        for i in pieces:
            chain = chains[i]
            file = self.steps.file(use, [chain.key, names, what, chain.number])
            task = Task(use, take_out, (chain.base, chain.edited, chain.last, bound, found, chain.number, file))
            tasks.append((i, file, task))
            after[i] = chain.then(use, file, edits=True)
        for i in failed | self._try(tasks):
            after[i] = self._set_aside(chains[i], [(use, EDITS, True)])
        self._say(use, _total([chain.files[-1][1] for chain in after if step.takes(chain.source)]))
        return after

    def _cut(self, chains: list[Chain], marks: Sequence[_Marks], folder: Path) -> None:
        """Which copies stay, what is held out, and the verdicts; its files are the cut's own."""
        scratch = Steps(folder / "scratch")
        lost: list[tuple[str, str, list[StepFile]]] = []
        left = _total([chain.last or chain.base for chain in chains]).rows_out
        for one in marks:
            bound, use = one.step.leaf.bind(), one.step.leaf.use
            before, name = [files for _, _, files in lost], f"{use}-{len(lost)}"
            ranked = {i: scratch.file(f"{name}-ranked", chains[i].number, ".npy") for i in one.files}
            self._must(
                [Task(use, rank, (chains[i], one.files[i], bound.keep, before, out)) for i, out in ranked.items()]
            )
            losers = self._ranges(scratch, f"{name}-lost", list(ranked.values()), lose, bound.most)
            lost.append((use, bound.reason, losers))
            gone = sum(file.entry()["account"]["rows_in"] for file in losers)
            self._say(f"{use} (copies)", Account(left, left - gone, reasons=Counter({bound.reason: gone})), acts=False)
            left -= gone
        drawn = self._draws(scratch, chains, marks, [one for _, _, one in lost])
        few = 1 + len(self.corpus.sources)
        ends = self._must([Task("held-out split", extremes, (chain, drawn, few)) for chain in chains])
        sources = [chain.source for chain in chains]
        hold_out = HoldOut.of(self.corpus.held_out, list(zip(sources, ends, strict=True)))
        (folder / "verdicts").mkdir()
        verdicts = [StepFile(folder / "verdicts" / f"{chain.number - 1:05}.parquet") for chain in chains]
        kept = [scratch.file("kept", chain.number) for chain in chains]
        text, edits = self.corpus.dropped_text, [(step, step.leaf.bind()) for step in self.corpus.steps]
        masks = [(step, edit) for step, edit in edits if getattr(edit, "masks", False)]
        tasks = list[Task]()
        for chain, verdict, stays in zip(chains, verdicts, kept, strict=True):
            mine = [edit for step, edit in masks if step.takes(chain.source)]
            arguments = (chain, lost, drawn, hold_out, self.seed, text, mine, verdict, stays)
            tasks.append(Task("cut", judge, arguments))
        self._must(tasks)
        self._must(
            [
                Task(
                    "index",
                    write_index,
                    (key, verdicts[i], StepFile(folder / "index" / one.step.leaf.use / f"{i:05}.npy")),
                )
                for one in marks
                for i, key in one.keys.items()
            ]
        )
        gathered = self._gather(chains, kept, folder)
        shutil.rmtree(folder / "scratch")
        steps = [{"source": one.source, "base": one.base.key, "steps": _paths(one)} for one in chains]
        write(folder / "parts.json", json.dumps(steps, indent=1))
        if self.aside:
            write(folder / ASIDE, json.dumps(list(self.aside.values()), indent=1, ensure_ascii=False))
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
        marks: Sequence[_Marks],
        lost: Sequence[Sequence[StepFile]],
    ) -> list[StepFile]:
        """Every survivor's draw; near copies, and the documents of a group, share theirs."""
        near = next((one.keys for one in marks if one.of_all()), None)
        split = "held-out split: near copies"
        minhash = CorpusStep(Leaf(("corpus.dedup",), "minhash"))
        keys, failed = (near, set()) if near is not None else self._keys(chains, minhash, split)
        if failed:
            raise UserError(f"failed three times: {self.aside[min(failed)]}", expected=WHOLE)
        groups = [self.steps.file("groups", [chain.base.key, chain.number], ".npy") for chain in chains]
        self._must(
            [
                Task("groups", write_groups, (chain.base, chain.number, file))
                for chain, file in zip(chains, groups, strict=True)
                if not file.done()
            ]
        )
        all_keys = [*keys.values(), *groups]
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
            out[source.name] = self._must(tasks)
        return out


class _SetAside:
    """Reads nothing of a file that failed three times."""

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        yield Flaw(-1, file.url, SET_ASIDE)

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
    free = ("against", "files", "keep", "most", "sources", "verify")
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


def place_of(part: Part, failure: Failure) -> str:
    """The record at which a unit failed: of a file while it is read, afterwards of a part's rows."""
    first, row, _ = failure.spot
    if failure.task.function is read_part:
        return f"{part.files[max(first, 0)].url}, item {max(row, 0)}"
    more = f" and {len(part.files) - 1} files more" if len(part.files) > 1 else ""
    return f"{f'document {first} of ' if first >= 0 else ''}{part.files[0].url}{more}"


def _why(failure: Failure) -> str:
    return failure.reason.strip().splitlines()[-1]

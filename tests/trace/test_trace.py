"""Twin: a run is taken step by step, killed, resumed and changed, and what its rows hold is noted from their tokens."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pretrain
from pretrain.base.errors import UserError
from pretrain.base.random import key
from pretrain.cli.main import main
from pretrain.corpus.cut import KEPT, VERDICTS
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Resumed, Saved, Skipped, Stage, Step
from pretrain.events.log import Log
from pretrain.order.order import ORDER_VERSION, History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.write import ShardWriter, write_catalogue
from pretrain.trace.trace import Sighting
from pretrain.trace.turns import positions

MUTANTS = [
    ("src/pretrain/trace/turns.py", "* (stands > short)", "* (stands >= short)"),
    ("src/pretrain/trace/turns.py", "own[turns - before]", "own[turns - before - 1]"),
    ("src/pretrain/trace/turns.py", "epoch * size + place", "place"),
    ("src/pretrain/trace/taken.py", "(step + 1, planned, position, rows)", "(step + 1, planned, 0, rows)"),
    ("src/pretrain/trace/taken.py", "kept, own = 0 if anew else step - 1, _End", "kept, own = step - 1, _End"),
    ("src/pretrain/trace/taken.py", "isinstance(event, Resumed) or kept >", "isinstance(event, Resumed) and kept >"),
    ("src/pretrain/trace/taken.py", "(end - own - position) // unlogged", "own"),
    ("src/pretrain/trace/taken.py", "position += event.rows", "pass"),
    ("src/pretrain/trace/taken.py", "or _covers(own, ends[-1])", "or False"),
    ("src/pretrain/trace/taken.py", "return step if step <= one.last else None", "return step"),
    ("src/pretrain/trace/trace.py", "said.cache_bytes", "Tokens().cache_bytes"),
    ("src/pretrain/trace/trace.py", "[one for one in every if one.id in ids]", "every"),
]
ROW = 8
WIDTH = 1000  # token = number of the document · WIDTH + its place there: a token says where it is from
SEED = 5
SIZES = {"web": (9, 30, 3, 17, 44, 8, 1, 21, 12, 60, 5, 33), "books": (70, 6, 15)}


def identity(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of documents with URLs, in several shards and files of several row groups."""
    root = tmp_path_factory.mktemp("traced") / "store"
    number, verdicts = 0, []
    for source, sizes in SIZES.items():
        writer = ShardWriter(root / f"tokens-{source}", vocab_size=2**20, shard_tokens=100, end=None)
        kept = []
        for size in sizes:
            number += 1
            one = {"id": identity(number), "source": source, "url": f"https://{source}.org/{number}", "file": "a.jsonl"}
            one |= {"place": number, "content": ""}
            group = {"order": key(SEED, "documents", one["id"])} if number % 3 else {"order": 1, "group": "repository"}
            kept.append({**one, **group, "text": "", "split": "train"})
            verdicts.append({**one, "split": "train"})
            writer.add(one["id"], number * WIDTH + np.arange(size))
        writer.close()
        kept.sort(key=lambda one: one["order"])
        (root / "corpus-a" / "kept" / source).mkdir(parents=True)
        table = pa.Table.from_pylist(kept, KEPT)
        pq.write_table(table, root / "corpus-a" / "kept" / source / "0.parquet", row_group_size=2)
    for split, step, reason in (("dropped", "length", "too short"), ("held_out", None, None)):
        one = {"id": identity(500), "url": f"https://web.org/{split}", "source": "web", "file": "a.jsonl", "place": 7}
        verdicts.append({**one, "split": split, "step": step, "reason": reason})
    (root / "corpus-a" / "verdicts").mkdir()
    pq.write_table(pa.Table.from_pylist(verdicts, VERDICTS), root / "corpus-a" / "verdicts" / "00000.parquet")
    made_of = {"seed": SEED, "sources": {name: {"read": "jsonl"} for name in SIZES}}
    (root / "corpus-a" / "key.json").write_text(json.dumps({"key": made_of}))
    return root


@dataclass
class Twin:
    """A run without a model: what training does to positions, events, checkpoints and history, and notes of its own."""

    run: RunDirectory
    rows: dict[str, Rows]
    notes: dict[int, list[tuple[int, str, int]]] = field(default_factory=dict)  # step: (position, source, row)
    saved: dict[int, tuple[int, History]] = field(default_factory=dict)
    step: int = 0
    position: int = 0
    history: History = field(default_factory=lambda: History(()))

    @classmethod
    def at(cls, store: Path, name: str = "x") -> "Twin":
        run = RunDirectory(store.parent / "runs" / name)
        shutil.rmtree(run.path, ignore_errors=True)
        return cls(run, {source: Rows(store / f"tokens-{source}", ROW) for source in SIZES})

    def order(self) -> Order:
        return Order(SEED, {name: len(rows) for name, rows in self.rows.items()}, self.history)

    def session(self, batch: int, web: float, steps: int, log_every: int, save_every: int, planned: int) -> None:
        """Goes on from the newest checkpoint for some steps, then is killed."""
        weights = {"web": web, "books": 1.0}
        with Log(self.run) as log:
            log.write(Stage("train", "started", ""))
            self.step, self.position, self.history = 0, 0, History((Segment(0, weights, {}),))
            if self.saved:
                self.step = max(self.saved)
                self.position, self.history = self.saved[self.step]
                log.write(Resumed(self.step, self.position, ""))
                if self.history.segments[-1].weights != weights:
                    self.history = self.order().changed(self.position, weights, "")
            self.notes = {step: note for step, note in self.notes.items() if step <= self.step}
            train = {
                "order": ORDER_VERSION,
                "seed": SEED,
                "row": ROW,
                "packing": "contiguous",
                "train": {"batch": batch * ROW, "sequence": 4},
            }
            folders = {"corpus": "corpus-a", **{f"tokens/{name}": f"tokens-{name}" for name in SIZES}}
            stages = {"train": {"key": train, "steps": planned}, "history": self.history.to_json(), "folders": folders}
            self.run.stages.write_text(json.dumps(stages))
            order = self.order()
            for _ in range(min(steps, planned - self.step)):
                self.take(order, batch, log if (self.step + 1) % log_every == 0 else None)
                if self.step % save_every == 0:
                    self.saved[self.step] = self.position, self.history
                    log.write(Saved(self.step, "", 0.0, 0))
                    folder = self.run.checkpoints / f"step-{self.step:08d}"
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / "state.json").write_text(json.dumps({"position": self.position}))

    def take(self, order: Order, batch: int, log: Log | None, skip: int = 0) -> None:
        """A step over the next rows."""
        self.step, self.position = self.step + 1, self.position + skip
        self.notes[self.step] = self.placed(range(self.position, self.position + batch))
        if log is not None:
            log.write(event(self.step, self.position, batch))
        self.position += batch

    def placed(self, positions: Sequence[int]) -> list[tuple[int, str, int]]:
        """(position, source, row) of positions."""
        order = self.order()
        source, _, row = order.at(np.array(positions))
        return list(zip(positions, (order.sources[one] for one in source), row.tolist(), strict=True))

    def seen(self, step: int) -> Iterator[tuple[int, int, str, str, int, int]]:
        """(step, position, source, document, start, stop) of a step, read off its tokens."""
        for position, source, row in self.notes[step]:
            tokens = self.rows[source].read(row)[0][:ROW].astype(int)
            for number in dict.fromkeys((tokens // WIDTH).tolist()):
                places = tokens[tokens // WIDTH == number] % WIDTH
                yield step, position, source, identity(number), int(places.min()), int(places.max()) + 1


def event(step: int, position: int, rows: int) -> Event:
    return Step(step, position, rows, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


def said(found: Sequence[Sighting]) -> list[tuple[int, int, str, str, int, int]]:
    return [(one.step, one.position, one.source, one.id, one.start, one.stop) for one in found]


def assert_traced(twin: Twin) -> None:
    """Every step to its documents, and every document to its steps."""
    notes = {step: list(twin.seen(step)) for step in twin.notes}
    for step, note in notes.items():
        found = pretrain.trace_step(twin.run.path, step)
        assert said(found) == note
        assert all(one.url == f"https://{one.source}.org/{int(one.id, 16)}" for one in found)
        assert all((one.file, one.place) == ("a.jsonl", int(one.id, 16)) for one in found)
    number = 0
    for source, sizes in SIZES.items():
        for _ in sizes:
            number += 1
            found = pretrain.trace_document(twin.run.path, f"https://{source}.org/{number}")
            truth = sorted(one for note in notes.values() for one in note if one[3] == identity(number))
            assert said([one for one in found if one.step <= max(notes, default=0)]) == truth


SESSION = st.tuples(
    st.sampled_from([1, 3, 4, 7]), st.sampled_from([0.5, 4.0]), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5)
)


@settings(max_examples=8, deadline=None)
@example(sessions=[(3, 0.5, 7, 3, 100), (7, 0.5, 12, 5, 100)])  # begins again, with nothing saved
@example(sessions=[(3, 0.5, 8, 10, 5), (7, 0.5, 9, 4, 5)])  # another batch from a checkpoint on, between two logs
@given(sessions=st.lists(SESSION, min_size=1, max_size=4))
def test_a_run_that_was_killed_resumed_and_changed_is_traced_both_ways(
    sessions: list[tuple[int, float, int, int, int]], store: Path
) -> None:
    """What a killed run did after its last log or checkpoint is unknown, but planned: it would do the same."""
    twin = Twin.at(store)
    for batch, web, steps, log_every, save_every in sessions:
        twin.session(batch, web, steps, log_every, save_every, planned=30)
    assert_traced(twin)


def test_later_epochs_are_traced(store: Path) -> None:
    """The plan's steps are what the run then does, and the run's last step is known from its checkpoint."""
    twin = Twin.at(store)
    twin.session(5, 1.0, 3, 10, 3, planned=40)
    planned = pretrain.trace_document(twin.run.path, identity(5))
    assert [one.taken for one in planned] == [one.step <= 3 for one in planned] and not planned[-1].taken
    twin.session(5, 1.0, 40, 10, 40, planned=40)
    assert_traced(twin)
    found = pretrain.trace_document(twin.run.path, identity(5))
    assert said(found) == said(planned) and max(one.epoch for one in found) >= 3 and all(one.taken for one in found)


def test_skipped_rows_are_no_steps(store: Path) -> None:
    twin = Twin.at(store)
    twin.session(3, 1.0, 4, 1, 1, planned=12)
    with Log(twin.run) as log:
        log.write(Resumed(4, twin.position, ""))
        for skip in (9, 0, 6, 0, 0, 0, 0, 0):
            twin.take(twin.order(), 3, log, skip)
    assert_traced(twin)


def test_batches_that_a_guard_passed_over_are_traced(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One is skipped between two logs, then training goes back to step 4; what a killed run skipped is undone."""
    twin = Twin.at(store)
    twin.session(3, 1.0, 4, 1, 4, planned=12)
    order, saved = twin.order(), twin.position

    def skip(log: Log, step: int, after: int, start: int, stop: int) -> None:
        log.write(Skipped(step, after, start, stop - start, None, 2.0, "loss nan"))
        twin.step, twin.position = after, stop

    with Log(twin.run) as log:
        log.write(Resumed(4, saved, ""))
        twin.take(order, 3, None)
        skip(log, 6, 5, saved + 3, saved + 6)
        twin.take(order, 3, log)
        assert_traced(twin)
        skip(log, 7, 4, saved, saved + 12)
        del twin.notes[5], twin.notes[6]
        assert_traced(twin)
        twin.take(order, 3, log)
        skip(log, 6, 5, twin.position, twin.position + 3)
        twin.take(order, 3, None)
        twin.take(order, 3, log)
        assert_traced(twin)
    found = json.loads(_shown(capsys, twin, "--skipped", "--json"))["skipped"]
    assert [(one["step"], one["after"], one["position"], one["rows"]) for one in found] == [
        (7, 4, saved, 12),
        (6, 5, saved + 15, 3),
    ]
    rest = replace(twin, notes={6: twin.placed(range(saved + 15, saved + 18))})
    told = [
        (one["step"], one["position"], one["source"], one["id"], one["start"], one["stop"])
        for one in found[1]["documents"]
    ]
    assert told == list(rest.seen(6)) and not any(one["taken"] for one in found[1]["documents"])
    page = _shown(capsys, twin, "--skipped")
    assert f"rows {saved:,} to {saved + 11:,} are passed over: loss nan at step 7; it goes on from step 4\n" in page
    assert all(one[3] in page for one in told)
    with Log(twin.run) as log:
        log.write(Resumed(4, saved, ""))
    assert json.loads(_shown(capsys, twin, "--skipped", "--json"))["skipped"] == []
    assert _shown(capsys, twin, "--skipped") == "no batch was passed over\n"


def _shown(capsys: pytest.CaptureFixture[str], twin: Twin, *arguments: str) -> str:
    capsys.readouterr()
    assert main(["trace", str(twin.run.path), *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("size", [1, 40, 2**14 - 1, 2**14, 2**14 + 1, 3 * 2**14 + 7])
def test_rows_stand_where_the_order_says(size: int) -> None:
    """Over several blocks, segments and epochs: the places of a few rows, against every place of the run."""
    rows, until = {"web": size, "books": 999}, 40_000
    history = History((Segment(0, {"web": size / 9000, "books": 1.0}, {}),))
    history = Order(3, rows, history).changed(13_001, {"web": size / 3000, "books": 1.0}, "")
    order = Order(3, rows, history)
    source, _, row = order.at(np.arange(until))
    for name in rows:
        wanted = {0, rows[name] - 1, rows[name] // 2, min(2**14, rows[name] - 1)}
        truth = np.flatnonzero((source == order.sources.index(name)) & np.isin(row, list(wanted)))
        assert positions(order, name, wanted, until) == truth.tolist()
    assert positions(order, "web", {0}, 0) == [] == positions(order, "web", set(), until)


def test_a_row_of_a_long_run_is_found_at_once() -> None:
    """A terabyte of tokens: only the blocks near the turn are looked at."""
    order = Order(1, {"web": 10**9}, History((Segment(0, {"web": 1.0}, {}),)))
    (at,) = positions(order, "web", {123_456_789}, 10**6) or [None]
    (row,) = order.at(np.array([777_777]))[2].tolist()
    assert positions(order, "web", {row}, 10**6) == [777_777] and at is None


def test_the_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = Twin.at(store)
    twin.session(4, 1.0, 6, 1, 1, planned=20)
    path = str(twin.run.path)

    def shown(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["trace", path, *arguments]) == 0
        return capsys.readouterr().out

    page = shown("--step", "2")
    assert page.startswith("step 2: rows 4 to 7, ") and "not taken yet" not in page
    assert all(f"{one[3]}  https://" in page and f"{one[4]}–{one[5]}" in page for one in twin.seen(2))
    assert "not taken yet, the run stands at step 6" in shown("--step", "8")
    table = json.loads(shown("--step", "2", "--json"))
    assert [(one["id"], one["tokens"]) for one in table["documents"]] == [(n[3], n[5] - n[4]) for n in twin.seen(2)]
    found = pretrain.trace_document(path, "https://web.org/10")
    page, table = shown("--url", "https://web.org/10"), json.loads(shown("--document", identity(10), "--json"))
    assert [one["step"] for one in table["sightings"]] == [one.step for one in found]
    assert table["records"][0]["place"] == 10 and "a.jsonl, line 10 (source web)" in page
    taken = [one for one in found if one.taken]
    assert f"by step 6: seen in {len({one.step for one in taken})} step" in page and "to come by 20: seen in" in page
    assert f"{sum(one.tokens for one in taken):,} tokens" in page
    assert "dropped by length: too short; no step sees it" in shown("--url", "https://web.org/dropped")
    assert "held out for evaluation; no step sees it" in shown("--url", "https://web.org/held_out")


def test_shards_of_a_store_are_kept_within_the_recipes_bound(store: Path) -> None:
    memory, name, bound = fsspec.filesystem("memory"), store.parent.name, 1300  # of its three shards, two at most
    for path in (store / "tokens-web").glob("*.shard"):
        memory.pipe_file(f"/{name}/{path.name}", path.read_bytes())
    away, made = store / "tokens-away", Catalogue.load(store / "tokens-web")
    write_catalogue(replace(made, folder=away, at=f"memory://{name}"))
    twin = Twin.at(store, "y")
    twin.session(3, 1.0, 9, 1, 3, 9)
    stages = json.loads(twin.run.stages.read_bytes())
    stages["folders"]["tokens/web"] = "tokens-away"
    twin.run.stages.write_text(json.dumps(stages))
    text = f'[run]\nname = "y"\n[tokens]\nfrom = "memory://{name}"\ncache_bytes = {bound}\n[train]\nsteps = 9\n'
    twin.run.recipe.write_text(text)
    assert_traced(twin)
    kept = [path.stat().st_size for path in (store / "cache").glob("*.shard")]
    assert 0 < sum(kept) <= bound < sum(path.stat().st_size for path in (store / "tokens-web").glob("*.shard"))


def test_mistakes_are_one_line(store: Path, tmp_path: Path) -> None:
    twin = Twin.at(store)
    twin.session(4, 1.0, 6, 1, 1, planned=9)
    path = twin.run.path
    with pytest.raises(UserError, match=r"step 10 is not in the plan; expected 1 to 9"):
        pretrain.trace_step(path, 10)
    with pytest.raises(UserError, match=r"no document 'https://web\.org/100'; .*; nearest: https://web\.org/10"):
        pretrain.trace_document(path, "https://web.org/100")
    with pytest.raises(UserError, match=r"nowhere: no such folder; expected the directory of a run"):
        pretrain.trace_step(tmp_path / "nowhere", 1)
    with pytest.raises(UserError, match="training has not begun"):
        pretrain.trace_step(tmp_path, 1)
    copy = tmp_path / "copy"
    shutil.copytree(store.parent, copy)
    shutil.rmtree(copy / "store" / "corpus-a")
    assert {one.url for one in pretrain.trace_step(copy / "runs" / "x", 1)} == {""}
    assert pretrain.trace_document(copy / "runs" / "x", identity(10))
    with pytest.raises(UserError, match=r"store/corpus-a: the corpus of this run is gone; expected `pretrain run"):
        pretrain.trace_document(copy / "runs" / "x", "https://web.org/10")
    shutil.rmtree(copy / "store" / "tokens-books")
    with pytest.raises(
        UserError, match=r"store/tokens-books: the shards of the source 'books' are gone; expected `pre"
    ):
        pretrain.trace_step(copy / "runs" / "x", 1)
    stages = json.loads(twin.run.stages.read_text())
    stages["train"]["key"]["order"] = 0
    (path / "stages.json").write_text(json.dumps(stages))
    with pytest.raises(UserError, match=r"a run of order version 0; expected version \d"):
        pretrain.trace_step(path, 1)

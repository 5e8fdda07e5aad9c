"""Twin: what a key covers, option by option; what is kept after a change equals a corpus made from nothing."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.corpus.build import Build, place_of
from pretrain.corpus.cut import Cut, judge
from pretrain.corpus.ledger import entries
from pretrain.corpus.made_of import made_of
from pretrain.corpus.parts import Account, Part, StepFile, Steps
from pretrain.corpus.read_part import read_part
from pretrain.corpus.sources import SourceFile, source_files
from pretrain.corpus.task import NOWHERE, Failure, Task
from pretrain.events.kinds import Event, Notice
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe

MUTANTS = [
    ("src/pretrain/corpus/made_of.py", "_each(value, partial(_content, step, name))", "_each(value, str)"),
    ("src/pretrain/recipe/recipe.py", "**inner.said()", "**inner.options"),
    ("src/pretrain/recipe/schema.py", "value == f.default or", ""),
    ("src/pretrain/corpus/build.py", "len(self.aside) > self.corpus", "len(failed) > self.corpus"),
    ("src/pretrain/corpus/build.py", "StepFile(file.path.with_stem(digest_of([file.key, SET_ASIDE])))", "file"),
    ("src/pretrain/corpus/build.py", "not dropped and not total.changed", "not dropped"),
    ("src/pretrain/corpus/steps.py", "if not alive and not always:", "if False:"),
    ("src/pretrain/corpus/cut.py", "text = masked(shown, masks)", "text = shown.text"),
    ("src/pretrain/corpus/build.py", "for step, edit in masks if step.takes(chain.source)", "for step, edit in masks"),
    ("src/pretrain/corpus/cut.py", "self.rows, self.size = [], 0", "self.size = 0"),
    ("src/pretrain/corpus/read/jsonl.py", "start, first = end, after", "start, first = end, first"),
    ("src/pretrain/corpus/read/jsonl.py", "(stop is None or stream.tell() < stop)", "True"),
    ("src/pretrain/corpus/read/parquet.py", "start, first, taken = i, row, 0", "start, first, taken = i, 0, 0"),
    ("src/pretrain/corpus/read/parquet.py", ", row_groups=range(start, stop)", ""),
]
Local = find("corpus.engine", "local").Local
RECIPE = """
[run]
name = "x"
[train]
steps = 1
batch = 64
sequence = 64
[corpus]
held_out = 0
"""
SOURCE = """
[[corpus.sources]]
name = "{0}"
read = "jsonl"
paths = ["in/{0}*.jsonl"]
"""


def recipe(folder: Path, more: str = "", sources: Sequence[str] = ("a",)) -> Recipe:
    (folder / "x.toml").write_text(RECIPE + "".join(map(SOURCE.format, sources)) + more)
    return load(str(folder / "x.toml"))


def key_of(made: Recipe) -> dict[str, object]:
    return made_of(made.corpus, {source.name: source_files(source) for source in made.corpus.sources}, 5)


def cut_of(folder: Path, made: Recipe, said: list[Event] | None = None) -> Cut:
    files = {source.name: source_files(source) for source in made.corpus.sources}
    shutil.rmtree(folder / "cut", ignore_errors=True)
    (folder / "cut").mkdir()
    (folder / "steps").mkdir(exist_ok=True)
    with Local(0).open(folder / "steps") as pool:
        tell = [].append if said is None else said.append
        Build(made.corpus, 5, Steps(folder / "steps"), pool, tell).run(files, folder / "cut")
    return Cut(folder / "cut")


def lines(path: Path, rows: Sequence[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_file_that_an_option_names_is_keyed_by_its_content_and_found_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path / "in" / "a.jsonl", [{"text": f"text {i}", "url": f"https://{i}.org/"} for i in range(4)])
    (tmp_path / "list.txt").write_text("1.org\n")
    made = recipe(tmp_path, '[[corpus.steps]]\nuse = "url"\ndomains = ["list.txt"]\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    kept = {document.url for document in cut_of(tmp_path, made).documents("train")}
    assert kept == {"https://0.org/", "https://2.org/", "https://3.org/"}

    before = key_of(made)
    (tmp_path / "list.txt").write_text("2.org\n3.org\n")
    assert key_of(made) != before
    kept = {document.url for document in cut_of(tmp_path, made).documents("train")}
    assert kept == {"https://0.org/", "https://1.org/"}
    (tmp_path / "list.txt").write_text("1.org\n")
    assert key_of(made) == before

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text(made.to_toml())
    assert key_of(load(str(tmp_path / "run"))) == before, "a resolved recipe may lie anywhere"
    (tmp_path / "list.txt").unlink()
    with pytest.raises(UserError, match=r"url: domains: no such file: .*list.txt"):
        key_of(made)


@pytest.mark.parametrize(
    ("use", "option"),
    [
        ("url", "words"),
        ("classifier", "positive"),
        ("classifier", "negative"),
        ("decontaminate", "against"),
        ("exact", "against"),
        ("minhash", "against"),
        ("perplexity", "model"),
        ("language", "model"),
    ],
)
def test_every_option_that_names_files(tmp_path: Path, use: str, option: str) -> None:
    lines(tmp_path / "in" / "a.jsonl", [{"text": "text"}])
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "a.jsonl").write_text("one")
    value = '"sets"' if option == "model" else '["sets"]'
    made = recipe(tmp_path, f'[[corpus.steps]]\nuse = "{use}"\n{option} = {value}\n')
    before = key_of(made)
    (tmp_path / "sets" / "a.jsonl").write_text("two")
    assert key_of(made) != before
    assert str(tmp_path / "sets") in str(made.corpus.steps[0].leaf.paths())


def test_a_default_that_is_a_word_is_no_file(tmp_path: Path) -> None:
    lines(tmp_path / "in" / "a.jsonl", [{"text": "text"}])
    made = recipe(tmp_path, '[[corpus.steps]]\nuse = "language"\nmodel = "langid"\n')
    assert made.corpus.steps[0].leaf.bind().model == "langid" and key_of(made)["steps"][0]["model"] == "langid"


def test_no_source_is_held_out_whole(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(12)]
    for i, name in enumerate(names):
        lines(tmp_path / "in" / f"{name}-.jsonl", [{"text": f"{name} {j} text"} for j in range(1 + i % 3)])
    recipe(tmp_path, "", [f"{name}-" for name in names])
    summary = cut_of(tmp_path, load(str(tmp_path / "x.toml"), ["corpus.held_out=0.5"])).summary
    assert all(summary[f"{name}-"]["train"]["documents"] for name in names)
    assert sum(summary[f"{name}-"]["held_out"]["documents"] for name in names) >= 2


PARTS = 3
STEPS = """
[[corpus.steps]]
use = "length"
min_characters = 3
[[corpus.steps]]
use = "lines"
[[corpus.steps]]
use = "exact"
[[corpus.steps]]
use = "redact"
"""


def broken(monkeypatch: pytest.MonkeyPatch, folder: str, begun: int = 0) -> list[Path]:
    """A disk that cannot take a file that is begun in a folder of steps, the first one; how often it was tried."""
    commit, bad, files = StepFile.commit, list[Path](), list[Path]()

    def fail(self: StepFile, partial: Path, account: Account, **more: object) -> None:
        if self.path.parent.name == folder and self.path not in files:
            files.append(self.path)
        if self.path in files[begun : begun + 1]:
            bad.append(self.path)
            raise OSError(5, "Input/output error")
        commit(self, partial, account, **more)

    monkeypatch.setattr(StepFile, "commit", fail)
    return bad


@pytest.mark.parametrize("folder", ["read-jsonl", "length", "lines-pieces", "lines", "exact-keys", "exact"])
def test_a_part_that_fails_three_times_is_set_aside_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 70)  # a part a file
    for i in range(PARTS):
        lines(tmp_path / "in" / f"a{i}.jsonl", [{"text": f"text {i} {j}" if j else ""} for j in range(4)])
    made = recipe(tmp_path, STEPS)
    with pytest.MonkeyPatch.context() as once:
        broken(once, folder)
        with pytest.raises(UserError, match=r"a0.jsonl.* failed three times: OSError.*output error; .*failed_share"):
            cut_of(tmp_path, made)
    shutil.rmtree(tmp_path / "steps")
    made, said = load(str(tmp_path / "x.toml"), [f"corpus.failed_share={1 / PARTS}"]), list[Event]()
    with pytest.MonkeyPatch.context() as once:
        bad = broken(once, folder)
        cut = cut_of(tmp_path, made, said)
        assert len(bad) == 3
    gone = 1 if folder == "read-jsonl" else 3  # documents; of a file that could not be read, its one row
    reasons = {"no text": PARTS - (folder == "read-jsonl"), "set aside after three failures": gone}
    assert cut.summary["a"]["dropped_for"] == reasons
    assert len(list(cut.documents("train"))) == 3 * (PARTS - 1) and len(cut.aside) == 1
    warned = [one.text for one in said if isinstance(one, Notice) and one.level == "warning"]
    assert [text for text in warned if text.startswith("set aside: ")] == [f"set aside: {cut.aside[0]}"]

    repaired = cut_of(tmp_path, made)
    assert not repaired.aside and len(list(repaired.documents("train"))) == 3 * PARTS
    before = {path.name: path.read_bytes() for path in repaired.folder.rglob("*") if path.is_file()}
    shutil.rmtree(tmp_path / "steps")
    after = {path.name: path.read_bytes() for path in cut_of(tmp_path, made).folder.rglob("*") if path.is_file()}
    assert after == before, "as if nothing had happened"


def test_parts_that_fail_in_other_steps_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 70)
    for i in range(PARTS):
        lines(tmp_path / "in" / f"a{i}.jsonl", [{"text": f"text {i} {j}"} for j in range(4)])
    recipe(tmp_path, STEPS)
    one, two = (load(str(tmp_path / "x.toml"), [f"corpus.failed_share={share / PARTS}"]) for share in (1, 2))
    broken(monkeypatch, "length")
    broken(monkeypatch, "exact-keys", begun=1)
    with pytest.raises(UserError, match=r"a1.jsonl: exact keys failed three times"):
        cut_of(tmp_path, one)
    shutil.rmtree(tmp_path / "steps")
    assert [text.partition(",")[0] for text in cut_of(tmp_path, two).aside] == ["length", "exact keys"]


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("lines-repeated", "a range of all documents: lines failed three times"),
        ("exact-clusters", "a range of all documents: exact-clusters failed three times"),
        ("exact-0-ranked", "a0.jsonl: exact failed three times"),
        ("verdicts", "a0.jsonl: cut failed three times"),
        ("minhash-keys", "failed three times: held-out split: near copies, .*a0.jsonl"),
    ],
)
def test_what_cannot_be_set_aside_names_its_place_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, said: str
) -> None:
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 70)
    for i in range(PARTS):
        lines(tmp_path / "in" / f"a{i}.jsonl", [{"text": f"text {i} {j}"} for j in range(4)])
    recipe(tmp_path, STEPS)
    made = load(str(tmp_path / "x.toml"), ["corpus.failed_share=1"])
    with pytest.MonkeyPatch.context() as once:
        broken(once, folder)
        with pytest.raises(UserError, match=rf"{said}.*OSError.*; expected .* for the whole corpus"):
            cut_of(tmp_path, made)
    assert len(list(cut_of(tmp_path, made).documents("train"))) == 4 * PARTS


def test_where_a_unit_failed() -> None:
    part = Part("a", tuple(SourceFile(Path(), f"a{i}.jsonl", 1, "") for i in range(2)))
    cut, reading = Task("cut", judge, ()), Task("reading a", read_part, ())
    assert place_of(part, Failure(cut, "why", (7, 0, 0))) == "document 7 of a0.jsonl and 1 files more"
    assert place_of(part, Failure(cut, "why", NOWHERE)) == "a0.jsonl and 1 files more"
    assert place_of(part, Failure(reading, "why", (1, 9, 0))) == "a1.jsonl, item 9"


def test_what_is_said_of_steps(tmp_path: Path) -> None:
    rows = [{"text": f"The letter {i} of the captain was read to the people of the town."} for i in range(4)]
    rows += [{"text": "Der Brief des Kapitäns wurde den Leuten in der Stadt gestern vorgelesen."}, *[{"x": 1}] * 60]
    lines(tmp_path / "in" / "a.jsonl", rows)
    steps = ["language", "length", "exact", "url", "redact"]
    said = list[Event]()
    cut_of(tmp_path, recipe(tmp_path, "".join(f'[[corpus.steps]]\nuse = "{use}"\n' for use in steps)), said)
    told = {one.text.partition(":")[0]: (one.level, one.text) for one in said if isinstance(one, Notice)}
    assert told["reading a"][0] == "warning" and "65 → 5 documents (60 read: no field 'text')" in told["reading a"][1]
    assert "more than corpus.most_dropped = 0.9 of them are gone" in told["reading a"][1]
    assert told["language"] == ("info", "language: 5 → 5 documents; languages: en 4, de 1")
    assert told["length"][0] == "info" or told["length"][1].endswith("it changed nothing")
    assert told["url"] == ("warning", "url: 5 → 5 documents; it changed nothing")
    assert told["redact"] == ("warning", "redact: 5 → 5 documents; it changed nothing")
    assert told["exact"] == ("info", "exact: 5 documents, 0 of them with copies, which the cut drops")
    assert told["exact (copies)"] == ("info", "exact (copies): 5 → 5 documents")
    assert not any("reused" in said for _, said in told.values())
    again = list[Event]()
    steps[3] = "c4"
    cut_of(tmp_path, recipe(tmp_path, "".join(f'[[corpus.steps]]\nuse = "{use}"\n' for use in steps)), again)
    lines_said = [one.text for one in again if isinstance(one, Notice)]
    reused = [text.partition(":")[0] for text in lines_said if text.endswith("; reused")]
    assert reused == ["reading a", "language", "length", "exact"], "all before the step that changed, and none after it"
    steps[3] = "url"
    order = [one.text.partition(":")[0] for one in said if isinstance(one, Notice)]
    assert order == ["reading a", *steps, "exact (copies)"], "as in the recipe; what the cut does comes last"


@pytest.mark.parametrize("measure", ["until_dropped", "all"])
def test_a_step_says_the_same_alone_and_among_others(tmp_path: Path, measure: str) -> None:
    lines(tmp_path / "in" / "a.jsonl", [{"text": f"a text of {'many ' * i}words by a{i}@b.org"} for i in range(60)])
    steps = ["length\nmin_characters = 60", "redact", "length\nmax_characters = 200", "gopher_quality"]
    split = [(one.partition("\n")[0], one.partition("\n")[2]) for one in steps]
    recipe(tmp_path, "".join(f'[[corpus.steps]]\nuse = "{use}"\n{more}\n' for use, more in split))
    made = load(str(tmp_path / "x.toml"), [f"corpus.measure={measure}", "corpus.sample=0.2"])
    [part] = json.loads((cut_of(tmp_path, made).folder / "parts.json").read_bytes())
    files = [tmp_path / "steps" / use / f"{key}.parquet" for use, key in part["steps"]]
    together = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
        cut_of(tmp_path, made)  # from here on once more
    assert [file.read_bytes() for file in files] == together
    unsaid = pa.parquet.read_table(files[2])["characters"].null_count
    assert unsaid == 0 if measure == "all" else 5 <= unsaid <= 12, "but for the sample, those that were dropped before"


@pytest.mark.parametrize("step", ["redact", 'redact\nsources = ["b"]', ""])
def test_personal_data_of_a_dropped_document_stands_nowhere_in_the_cut(tmp_path: Path, step: str) -> None:
    for source in ("a", "b"):
        lines(
            tmp_path / "in" / f"{source}.jsonl",
            [{"text": f"ask jo@{source}.org"}, {"text": f"ask jo@{source}.org " * 9}],
        )
    steps = ["length\nmin_characters = 30", *filter(None, [step]), "length\nmax_characters = 90"]
    more = "".join(
        "[[corpus.steps]]\nuse = " + "\n".join([json.dumps(a), b]) + "\n"
        for a, _, b in (s.partition("\n") for s in steps)
    )
    recipe(tmp_path, more, ("a", "b"))
    cut = cut_of(tmp_path, load(str(tmp_path / "x.toml"), ["corpus.dropped_text=true"]))
    found = [row["text"] for row in cut.verdicts()]
    shown = {"a": "<EMAIL>" if step == "redact" else "jo@a.org", "b": "<EMAIL>" if step else "jo@b.org"}
    assert found == [f"ask {shown[source]}{end}" for source in "ab" for end in ("", f" ask {shown[source]}" * 8 + " ")]


def test_documents_are_sorted_in_bounded_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(tmp_path / "in" / "a.jsonl", [{"text": f"text {i} " * 20} for i in range(300)])
    whole = [one.id for one in cut_of(tmp_path, recipe(tmp_path)).documents("train")]
    monkeypatch.setattr("pretrain.corpus.cut.RUN_BYTES", 2000)
    assert [one.id for one in cut_of(tmp_path, recipe(tmp_path)).documents("train")] == whole


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_large_file_is_read_in_parts_as_it_is_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    rows = [json.dumps({"text": f"text {i} " * (1 + i % 7)}) for i in range(90)] + ["", "{no json", "x" * 5000]
    draw = np.random.Generator(np.random.Philox(3)).permutation(len(rows))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(rows[i] for i in draw) + end)
    monkeypatch.setattr(find("corpus.read", "jsonl"), "LONGEST", 4000)
    table = pa.table({"text": [f"row {i}" if i % 9 else None for i in range(60)]})
    pa.parquet.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=7)
    more = '[[corpus.sources]]\nname = "p"\nread = "parquet"\npaths = ["in/*.parquet"]\n'
    whole = cut_of(tmp_path, recipe(tmp_path, more))
    fields = ["id", "url", "place", "reason", "split", "content"]
    before, kept = list(whole.verdicts(fields)), [one.id for one in whole.documents("train")]
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 300)
    cut = cut_of(tmp_path, recipe(tmp_path, more))
    assert len(json.loads((cut.folder / "parts.json").read_bytes())) > 15
    assert [one.id for one in cut.documents("train")] == kept
    assert list(cut.verdicts(fields)) == before and {row["reason"] for row in before} > {"line too long", "no JSON"}


def test_what_a_reader_counts_is_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("A book without the lines of the project around it.")
    made = recipe(tmp_path, '[[corpus.sources]]\nname = "books"\nread = "gutenberg"\npaths = ["in/*.txt"]\n', [])
    cut = cut_of(tmp_path, made)
    [entry] = entries(cut.folder, next(iter(cut.verdicts()))["id"])
    assert entry.steps == [("read", None, {"boilerplate_found": 0.0})]

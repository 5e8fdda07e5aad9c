"""Twin: a step for some sources does to theirs what it does alone, and to the others nothing; all accounts know it."""

import json
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.cli.main import main
from pretrain.corpus.cut import Cut
from pretrain.corpus.parts import Steps
from pretrain.corpus.recut import recut
from pretrain.corpus.survey import survey
from pretrain.recipe.read import load

MUTANTS = [
    ("src/pretrain/recipe/corpus.py", "not self.sources or source in self.sources", "True"),
    ("src/pretrain/corpus/build.py", "if one.takes(chain.source)):", "):"),
    ("src/pretrain/corpus/build.py", "and not self.step.sources and", "and"),
    (
        "src/pretrain/corpus/recut.py",
        "clusters += [numbers] if _is_copies(old.leaf) else []",
        "clusters += [numbers * 0]",
    ),
    ("src/pretrain/corpus/survey.py", "out.append((stage.name, left,", "out.append((stage.name, account.rows_in,"),
]
HEAD = """
[run]
name = "x"
[train]
steps = 1
batch = 64
sequence = 64
[corpus]
held_out = 0
measure = "all"
"""
SOURCE = """
[[corpus.sources]]
name = "{0}"
read = "jsonl"
paths = ["{0}.jsonl"]
"""
STEPS = ["length\nmin_characters = 40", "lines", "exact", "minhash", "redact", "length\nmax_characters = 300"]
NOTICE = "a notice that stands on many a page"


def texts(name: str) -> list[str]:
    """Short and long ones, copies in the source and of the other, a line and an address in many."""
    own = [f"{name} text {i} of some length and {i * i} more, to be read by {i}@site.org\n{NOTICE}" for i in range(12)]
    twice = f"{name}, a first line\na second line\na third line\na fourth"
    return [
        *own,
        twice,
        twice,
        "short",
        f"{name} word " * 90,
        "the same words in both sources, and enough of them\nto be kept",
    ]


def recipe(folder: Path, sources: list[str], steps: list[str], name: str = "x") -> str:
    folder.mkdir(exist_ok=True)
    for source in sources:
        (folder / f"{source}.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts(source)))
    said = "".join("[[corpus.steps]]\nuse = " + json.dumps(s.partition("\n")[0]) + "\n" + s.partition("\n")[2] + "\n"
                   for s in steps)  # fmt: skip
    (folder / f"{name}.toml").write_text(HEAD + "".join(map(SOURCE.format, sources)) + said)
    return f"{name}.toml"


def cut_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: list[str]) -> Cut:
    name = recipe(folder, *arguments)
    monkeypatch.chdir(folder)
    assert main(["run", name, "--to", "corpus", "corpus.engine.processes=0"]) == 0
    return Cut(max((folder / "store").glob("corpus-*"), key=lambda path: path.stat().st_mtime))


def kept(cut: Cut, source: str) -> list[str]:
    return sorted(one.text for one in cut.documents("train", source))


def test_a_step_for_one_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = cut_of(tmp_path / "one", monkeypatch, ["a"], STEPS)
    bare = cut_of(tmp_path / "two", monkeypatch, ["b"], [])
    assert len(kept(alone, "a")) == 14 and len(kept(bare, "b")) == len(texts("b"))
    both = cut_of(tmp_path, monkeypatch, ["a", "b"], [f'{step}\nsources = ["a"]' for step in STEPS])
    assert kept(both, "a") == kept(alone, "a") and kept(both, "b") == kept(bare, "b")
    reasons = alone.summary["a"]["dropped_for"]
    assert both.summary["a"]["dropped_for"] == reasons and not both.summary["b"]["dropped_for"]
    assert {"too short", "too long", "exact copy"} <= reasons.keys()

    said = survey(both.folder).losses()
    assert [came for _, came, _ in said][:2] == [2 * len(texts("a"))] * 2
    assert said[-1][1] - said[-1][2] == len(kept(both, "a")) + len(kept(both, "b"))
    assert sum(lost for _, _, lost in said) == sum(reasons.values())
    capsys.readouterr()
    assert main(["inspect", "x.toml", "--document", "b.jsonl:3"]) == 0
    shown = capsys.readouterr().out
    assert "verdict  train" in shown and "length" not in shown and "minhash" not in shown
    assert main(["inspect", "x.toml", "--document", "a.jsonl:3"]) == 0
    assert "minhash" in capsys.readouterr().out


def test_recut_of_a_step_for_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ['exact\nsources = ["b"]', 'length\nmin_characters = 3\nsources = ["a"]', "exact"]
    now = cut_of(tmp_path, monkeypatch, ["a", "b"], steps)
    change = "corpus.steps.length.min_characters=60"
    before, after = load("x.toml"), load("x.toml", [change])
    said = recut(now.folder, Steps(tmp_path / "store" / "steps"), before.corpus, after.corpus, 5, exact=True)
    was = {row["id"] for row in now.verdicts() if row["split"] != "dropped"}
    assert main(["run", "x.toml", "--to", "corpus", "run.name=y", change]) == 0
    then = Cut(max((tmp_path / "store").glob("corpus-*"), key=lambda path: path.stat().st_mtime))
    rerun = {row["id"] for row in then.verdicts() if row["split"] != "dropped"}
    assert said.ids == rerun and (said.lost, said.gained) == (len(was - rerun), len(rerun - was))
    assert said.lost and said.gained, "a short text of a goes, its copy in b comes back"
    other = load("x.toml", ['corpus.steps.length.sources=["b"]'])
    with pytest.raises(UserError, match="the steps are not the same"):
        recut(now.folder, Steps(tmp_path / "store" / "steps"), before.corpus, other.corpus, 5, exact=True)


def test_copies_in_other_sources_fall_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = recipe(tmp_path, ["a", "b"], ['minhash\nsources = ["a"]'])
    for source in ("a", "b"):
        same = [f"page {i} of {'many ' * i}words that stand in both sources as they are" for i in range(16)]
        (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in same))
    monkeypatch.chdir(tmp_path)
    assert main(["run", name, "--to", "corpus", "corpus.engine.processes=0", "corpus.held_out=0.4"]) == 0
    cut = Cut(next((tmp_path / "store").glob("corpus-*")))
    train, held = ({one.text for one in cut.documents(split)} for split in ("train", "held_out"))
    assert train and held and not train & held


def test_no_such_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = recipe(tmp_path, ["books", "web"], ['exact\nsources = ["web", "bookz"]'])
    with pytest.raises(UserError, match=r"x.toml:\d+: corpus.steps.0.sources: no source is called 'bookz'; .*books"):
        load(name)

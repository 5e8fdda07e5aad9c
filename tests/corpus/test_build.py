"""Twin: what a key covers, option by option; what is kept after a change equals a corpus made from nothing."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.corpus.build import Build, made_of
from pretrain.corpus.cut import Cut
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import source_files
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe

MUTANTS = [
    ("src/pretrain/corpus/build.py", "**step.options, **named}", "**step.options, **step.paths()}"),
    ("src/pretrain/recipe/recipe.py", "**inner.said()", "**inner.options"),
    ("src/pretrain/recipe/recipe.py", "**value.said()", "**value.options"),
    ("src/pretrain/recipe/schema.py", "value == f.default or", ""),
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


def cut_of(folder: Path, made: Recipe, said: Sequence[str] = (), *, processes: int = 0) -> Cut:
    files = {source.name: source_files(source) for source in made.corpus.sources}
    shutil.rmtree(folder / "cut", ignore_errors=True)
    (folder / "cut").mkdir()
    (folder / "steps").mkdir(exist_ok=True)
    with Local(processes).open(folder / "steps") as pool:
        Build(made.corpus, 5, Steps(folder / "steps"), pool, list(said).append).run(files, folder / "cut")
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
    with pytest.raises(UserError, match=r"list.txt: no such file"):
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
    assert str(tmp_path / "sets") in str(made.corpus.steps[0].paths())


def test_a_default_that_is_a_word_is_no_file(tmp_path: Path) -> None:
    lines(tmp_path / "in" / "a.jsonl", [{"text": "text"}])
    made = recipe(tmp_path, '[[corpus.steps]]\nuse = "language"\nmodel = "langid"\n')
    assert made.corpus.steps[0].bind().model == "langid" and key_of(made)["steps"][0]["model"] == "langid"


def test_no_source_is_held_out_whole(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(12)]
    for i, name in enumerate(names):
        lines(tmp_path / "in" / f"{name}-.jsonl", [{"text": f"{name} {j} text"} for j in range(1 + i % 3)])
    recipe(tmp_path, "", [f"{name}-" for name in names])
    summary = cut_of(tmp_path, load(str(tmp_path / "x.toml"), ["corpus.held_out=0.5"])).summary
    assert all(summary[f"{name}-"]["train"]["documents"] for name in names)
    assert sum(summary[f"{name}-"]["held_out"]["documents"] for name in names) >= 2

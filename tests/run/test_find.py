"""Closed form: a corpus is found by its recipe, its run and its folder; its sources are not read again for that."""

import json
from pathlib import Path

import pytest

from pretrain.cli.main import main
from pretrain.corpus import sources
from pretrain.run.find import corpus_of

MUTANTS = [
    ("src/pretrain/run/stages.py", 'if "train" not in context.remembered:', "if False:"),
    ("src/pretrain/run/find.py", "if keep and digests.learned", "if False"),
]
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["in/*.jsonl"]
[train]
steps = 1
batch = 64
sequence = 64
"""


def test_by_recipe_run_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(4)))
    (tmp_path / "x.toml").write_text(RECIPE)
    monkeypatch.setattr(sources, "SETTLED_SECONDS", -1)
    assert main(["run", "x.toml", "--to", "corpus", "corpus.held_out=0.25"]) == 0
    assert "pretrain inspect runs/x --html page.html" in capsys.readouterr().out
    assert main(["run", "x.toml", "--to", "corpus", "run.name=y"]) == 0
    assert "corpus: runs (nothing is there yet)" in capsys.readouterr().out, "another run's corpus explains nothing"
    assert main(["run", "x.toml", "--to", "corpus", "corpus.held_out=0.5"]) == 0
    assert "corpus: runs (changed: held_out 0.25 -> 0.5)" in capsys.readouterr().out
    assert main(["run", "x.toml", "--to", "corpus", "corpus.held_out=0.25"]) == 0
    read = list[Path]()
    monkeypatch.setattr(sources, "digest_file", lambda path: read.append(path) or "")
    folder = corpus_of("runs/x")
    assert json.loads((folder / "key.json").read_bytes())["key"]["held_out"] == 0.25 and not read
    assert corpus_of(str(folder)) == folder and corpus_of("x.toml") == corpus_of("runs/y") != folder

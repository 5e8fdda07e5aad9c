"""Ordeal and twin: a poisoned cut is told from a clean one, equal cuts are not told apart, nothing is done twice."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pretrain.base.errors import UserError
from pretrain.cli.main import main
from pretrain.corpus.document import Document
from pretrain.recipe.read import load
from pretrain.run.ablate import ablate, check, common
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/run/ablate.py", "if share <= COPIED]", "]"),
    ("src/pretrain/run/ablate.py", "theirs.get(name) == text", "True"),
]
RECIPE = """
[run]
name = "x"
seed = 4
threads = 1
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["pages.jsonl"]
[corpus]
held_out = 0.2
[tokenizer]
vocab_size = 300
reserved = 16
[model]
use = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 1
num_key_value_heads = 1
max_position_embeddings = 32
[train]
optimizer = { use = "muon", lr = 0.02 }
steps = 20
batch = 256
sequence = 32
checkpoint_every = 0
precision = "fp32"
[evaluate]
baselines = false
[[evaluate.tasks]]
use = "python_syntax"
samples = 2
tokens = 8
"""
CLEAN = '[[corpus.steps]]\nuse = "length"\nmax_line = 100\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pages of sentences, and as many of noise; cuts with and without the noise."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.Generator(np.random.Philox(2))
    nouns = ["owner", "keeper", "letter", "garden", "mirror", "spring", "carpet", "harbour", "river", "window"]
    pages = ["\n".join(f"The {draw.choice(nouns)} was {draw.choice(nouns)}." for _ in range(9)) for _ in range(60)]
    noise = ["".join(map(chr, draw.integers(33, 127, 300))) for _ in range(60)]
    (tmp_path / "pages.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in [*pages, *noise]))
    (tmp_path / "base.toml").write_text(RECIPE)
    for name, steps in (("clean", CLEAN), ("poisoned", ""), ("same", CLEAN)):
        (tmp_path / f"{name}.toml").write_text(f'extends = "base.toml"\n{steps}')
    return tmp_path


@pytest.mark.slow
def test_a_poisoned_cut_is_worse_and_an_equal_one_is_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ablate", "clean.toml", "poisoned.toml", "same.toml", "--name", "noise"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    _, poisoned, same = found["verdicts"]["bits per byte"]
    assert poisoned["difference"] > 0.1 and poisoned["verdict"].startswith("worse by")
    assert same["difference"] == 0 and same["verdict"] == "no difference seen (+0.0000 ± 0.0000)"
    assert "functions that parse" in found["verdicts"] and found["seeds"] == [4, 5, 6]
    assert found["budget"] == 20 * 256 and found["facts"][1]["documents"] > found["facts"][0]["documents"]
    runs = [folder / "runs" / "noise" / f"{cut}-{seed}" for cut in ("clean", "poisoned", "same") for seed in (4, 5, 6)]
    stages = [json.loads((run / "stages.json").read_text()) for run in runs]
    words = [Tokenizer.load(folder / "store" / one["folders"]["tokenizer"]).digest for one in stages]
    assert words[:3] == words[3:6] == words[6:], "a seed has one tokenizer, in the store that all runs share"
    tokens = [one["folders"]["tokens/web"] for one in stages]
    assert tokens[0] == tokens[6] != tokens[3], "equal cuts share their shards"

    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.safetensors")}
    notes = (folder / "runs" / "noise" / "ablation.json").read_text()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.safetensors")} == before
    assert (folder / "runs" / "noise" / "ablation.json").read_text() == notes
    assert "3 cuts, 3 seeds, 5,120 tokens each; scored on" in shown and "that every cut keeps and holds out" in shown
    page = (folder / "runs" / "noise" / "ablation.html").read_text()
    assert page.count("<circle") == 2 * 9 and "no difference seen" in page and "http" not in page

    (folder / "clean.toml").write_text('extends = "base.toml"\n' + CLEAN.replace("100", "90"))
    with pytest.raises(UserError, match=r"clean was another recipe when this ablation was begun; .*max_line.*--name"):
        ablate({"clean": load("clean.toml"), "same": load("same.toml")}, folder / "runs" / "noise", 1)
    (folder / "own.txt").write_text(" ".join(f"word{i}" for i in range(40)))
    recipes = {name: load(f"{name}.toml") for name in ("same", "poisoned")}
    scored = ablate(recipes, folder / "runs" / "data", 1, [folder / "own.txt"])
    assert scored.held_out.startswith("1 texts (") and "of --data" in scored.held_out


@dataclass(frozen=True)
class Documents:
    """Stands for a cut, and for its member: texts by id, held out and trained on."""

    folder: Path
    held_out: dict[str, str]
    train: tuple[str, ...]

    @property
    def documents(self) -> "Splits":
        return Splits(self)


@dataclass(frozen=True)
class Splits:
    of: Documents

    @property
    def folder(self) -> Path:
        return self.of.folder

    def documents(self, split: str) -> list[Document]:
        texts = self.of.held_out if split == "held_out" else dict(enumerate(self.of.train))
        return [Document(str(name), "web", "", text) for name, text in texts.items()]


def words(seed: int, count: int = 40) -> str:
    return " ".join(f"w{one}" for one in np.random.Generator(np.random.Philox(seed)).integers(0, 10**6, count))


def test_what_is_scored_was_held_out_by_all_and_copied_by_none() -> None:
    """`near` is trained on by one cut with its first word changed; `edited` reads another way in it."""
    texts = {name: words(i) for i, name in enumerate(("good", "near", "edited", "one's own", "half"))}
    texts["short"] = words(9, 12)
    half = texts["half"].split()
    near, some, other = "x " + texts["near"].partition(" ")[2], " ".join(half[:24]), " ".join(half[:30])
    one = Documents(Path("a"), texts, (words(20), some))
    two = Documents(Path("b"), {**texts, "edited": "another text"}, (near, words(21)))
    del two.held_out["one's own"]
    assert common([one, two], (), 10**6) == ([texts["good"], texts["half"]], 2)  # type: ignore[list-item]
    assert common([one, two], (), 1)[0] == [texts["good"]]  # type: ignore[list-item]
    more = Documents(Path("c"), texts, (other,))
    assert common([one, two, more], (), 10**6) == ([texts["good"]], 3)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.batch=512"],
            r"a and b differ in more than their data; changed: train\.batch 256 -> 512; expected rec",
        ),
        (["run.seed=5"], r"changed: run\.seed 4 -> 5"),
        (["corpus.held_out=0.1", "run.name=other", "release.license=other"], None),
    ],
)
def test_what_may_differ(overrides: list[str], message: str | None, folder: Path) -> None:
    recipes = {"a": load("clean.toml"), "b": load("poisoned.toml", overrides)}
    if message is None:
        return check(recipes)
    with pytest.raises(UserError, match=message):
        check(recipes)
    return None


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["clean.toml"], "one cut cannot be compared; expected two recipes or more"),
        (["clean.toml", "clean.toml"], "two recipes are called clean"),
        (["clean.toml", "poisoned.toml", "train.seconds=9"], "train.seconds is no budget of tokens"),
        (["clean.toml", "poisoned.toml", "--seeds", "0"], "--seeds is below 1"),
        (
            ["clean.toml", "poisoned.toml", "corpus.held_out=0", "train.steps=1", "--seeds", "1"],
            "no document is held out by every cut; expected more corpus.held_out, or --data",
        ),
    ):
        assert main(["ablate", *arguments]) == 2
        assert message in capsys.readouterr().err

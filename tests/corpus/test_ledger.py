"""Twin: from a record back to its line and forward to its tokens, which say its text again."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pretrain.cli.main import main
from pretrain.corpus.ledger import entries, places
from pretrain.shards.read import Shard
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/corpus/ledger.py", "{part - 1:05}.parquet", "{part:05}.parquet"),
    ("src/pretrain/corpus/ledger.py", "int(shard.bounds[i + 1] - shard.bounds[i])", "int(shard.bounds[i + 1])"),
    (
        "src/pretrain/corpus/ledger.py",
        "read_table(file.path).slice(row, 1)",
        "read_table(file.path).slice(0, 1)",
    ),
]
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["*.jsonl"]
[[corpus.steps]]
use = "length"
min_characters = 100
[corpus]
sample = 0.0
[tokenizer]
vocab_size = 300
reserved = 16
[train]
steps = 1
batch = 64
sequence = 64
"""


def test_lineage_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [
        " ".join(f"w{j}" for j in np.random.Generator(np.random.Philox(i)).integers(0, 99, 10 + i)) for i in range(60)
    ]
    for file in range(3):
        lines = [json.dumps({"text": text, "url": f"u{i}"}) for i, text in enumerate(texts) if i % 3 == file]
        (tmp_path / f"{file}.jsonl").write_text("\n".join(lines))
    (tmp_path / "x.toml").write_text(RECIPE)
    assert main(["run", "x.toml", "--to", "tokens"]) == 0
    (folder,) = (tmp_path / "store").glob("corpus-*")
    tokens = list((tmp_path / "store").glob("tokens-*"))
    (words,) = (tmp_path / "store").glob("tokenizer-*")
    tokenizer = Tokenizer.load(words)
    for i in (0, 3, 40, 59):
        (entry,) = entries(folder, f"u{i}")
        line = (
            (tmp_path / entry.verdict["file"].rpartition("/")[2]).read_text().splitlines()[entry.verdict["place"] - 1]
        )
        assert json.loads(line)["text"] == texts[i]
        (step,) = entry.steps
        assert step[2] == {"characters": float(len(texts[i])), "line": float(len(texts[i]))}
        found = list(places(tokens, entry.verdict["id"]))
        assert bool(found) == (entry.verdict["split"] == "train") and (len(texts[i]) >= 100 or step[1] == "too short")
        for shard, start, count in found:
            assert tokenizer.decode(Shard(shard).tokens[start : start + count - 1].tolist()) == texts[i]
    capsys.readouterr()
    assert main(["inspect", str(folder), "--document", "u0"]) == 0
    assert re.search(r"from +\S*0.jsonl, line 1 .*verdict +dropped by length: too short", capsys.readouterr().out, re.S)
    assert main(["inspect", str(folder), "--document", "nowhere"]) == 2
    assert main(["inspect", str(folder), "--document", "u57x"]) == 2
    assert "no record has the id or URL 'u57x'; expected that of one; nearest: u57" in capsys.readouterr().err


def test_a_copy_names_the_first_of_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = RECIPE.replace('use = "length"\nmin_characters = 100', 'use = "exact"')
    for name, letters in (("x", "abb"), ("y", "abc")):
        rows = [json.dumps({"text": f"text {letter}", "url": f"{name}{i}"}) for i, letter in enumerate(letters)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jsonl").write_text("\n".join(rows))
        against = "".join(f'against = ["{one}"]\n' for one in (tmp_path / "store").glob("corpus-*"))
        said = recipe.replace('use = "exact"\n', f'use = "exact"\n{against}').replace("*.jsonl", f"{name}/*.jsonl")
        (tmp_path / f"{name}.toml").write_text(said)
        before = set((tmp_path / "store").glob("corpus-*"))
        assert main(["run", f"{name}.toml", "--to", "corpus"]) == 0
        (folder,) = set((tmp_path / "store").glob("corpus-*")) - before
        firsts = [entries(folder, f"{name}{i}")[0].steps[-1][2].get("first") for i in range(3)]
        assert firsts == ([None, "x1", "x1"] if name == "x" else ["in an earlier corpus"] * 2 + [None])

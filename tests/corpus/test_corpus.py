"""Twin: every record is a document or a flaw, copies fall on one side of the split, all is accounted for."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from pretrain.base.errors import UserError
from pretrain.corpus.clusters import clusters
from pretrain.corpus.cut import Cut, make_cut
from pretrain.corpus.sources import source_files
from pretrain.corpus.steps import read_documents
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe

MUTANTS = [
    ("src/pretrain/corpus/cut.py", "one.cluster in held", "one.id in held"),
    ("src/pretrain/corpus/clusters.py", "parent[high] = low", "parent[i] = low"),
    ("src/pretrain/corpus/cut.py", "kept = [one for one in found if not one.reason]", "kept = found"),
]
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
{source}
[corpus]
held_out = 0.3
[train]
steps = 1
batch = 64
sequence = 64
"""


def words(seed: int, count: int = 120) -> list[str]:
    return [f"w{i}" for i in np.random.Generator(np.random.Philox(seed)).integers(0, 900, count)]


def recipe(folder: Path, source: str, extra: str = "") -> Recipe:
    (folder / "x.toml").write_text(RECIPE.format(source=source) + extra)
    return load(str(folder / "x.toml"))


def cut_of(folder: Path, made: Recipe) -> Cut:
    documents = {}
    for source in made.corpus.sources:
        documents[source.name] = folder / f"docs-{source.name}"
        documents[source.name].mkdir(exist_ok=True)
        read_documents(source, source_files(source), documents[source.name], 5)
    (folder / "cut").mkdir(exist_ok=True)
    make_cut(made.corpus, documents, folder / "cut", 5)
    return Cut(folder / "cut", documents)


def test_text_files(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_bytes("\ufeffnaïve\r\ntext".encode())
    (tmp_path / "in" / "deep" / "b.txt").write_text("more")
    (tmp_path / "in" / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "in" / "empty.txt").write_text(" \n")
    (tmp_path / "in" / "skip.txt").write_text("skipped")
    made = recipe(tmp_path, 'read = "text"\npaths = ["in/**/*.txt"]\nexclude = ["**/skip*"]')
    cut = cut_of(tmp_path, made)
    found = {document.url: document.text for split in ("train", "held_out") for document in cut.documents(split)}
    assert found == {"in/a.txt": "naïve\ntext", "in/deep/b.txt": "more"}
    assert cut.summary["web"]["dropped_for"] == {"not UTF-8": 1, "empty": 1}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_json_lines(tmp_path: Path, ending: str) -> None:
    lines = [json.dumps({"body": "one", "url": "u1", "license": "CC0-1.0"}), "{broken", json.dumps({"body": 3})]
    data = "\n".join([*lines, json.dumps({"body": "two"})]).encode()
    data = gzip.compress(data) if ending.endswith("gz") else data
    data = zstandard.ZstdCompressor().compress(data) if ending.endswith("zst") else data
    (tmp_path / f"a.{ending}").write_bytes(data)
    made = recipe(tmp_path, f'read = "jsonl"\ntext = "body"\npaths = ["a.{ending}"]')
    cut = cut_of(tmp_path, made)
    found = {d.url: (d.text, d.license) for split in ("train", "held_out") for d in cut.documents(split)}
    assert found == {"u1": ("one", "CC0-1.0"), f"a.{ending}:4": ("two", None)}
    assert cut.summary["web"]["dropped_for"] == {"no JSON": 1, "no text": 1}
    wrong = recipe(tmp_path, f'read = "jsonl"\ntext = "bdy"\npaths = ["a.{ending}"]')
    with pytest.raises(UserError, match=r"no field 'bdy'.*nearest: body"):
        cut_of(tmp_path, wrong)


def test_parquet(tmp_path: Path) -> None:
    pa.parquet.write_table(
        pa.table({"content": ["one", None, "three"], "url": ["u", "v", None]}), tmp_path / "a.parquet"
    )
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "parquet"\ntext = "content"\npaths = ["a.parquet"]'))
    found = {d.url: d.text for split in ("train", "held_out") for d in cut.documents(split)}
    assert found == {"u": "one", "a.parquet#2": "three"}
    with pytest.raises(UserError, match=r"no column 'contents'.*nearest: content"):
        cut_of(tmp_path, recipe(tmp_path, 'read = "parquet"\ntext = "contents"\npaths = ["a.parquet"]'))


def test_docstrings(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '"""This module says more than eight words about itself here."""\ndef f():\n    "short"\n'
    )
    (tmp_path / "b.py").write_text("def (")
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "docstrings"\npaths = ["*.py"]'))
    texts = [d.text for split in ("train", "held_out") for d in cut.documents(split)]
    assert texts == ["This module says more than eight words about itself here.\n"]
    assert cut.summary["web"]["dropped_for"] == {"no Python": 1}


def test_no_near_copy_of_a_held_out_document_is_trained_on(tmp_path: Path) -> None:
    lines, group = [], {}
    for i in range(60):
        base = words(i)
        for copy in range(1 + i % 3):
            changed = [*base[:60], f"changed{copy}", *base[61:]] if copy else base
            group[" ".join(changed)] = i
            lines.append(json.dumps({"text": " ".join(changed)}))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    kept = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["a.jsonl"]'))
    sides = {split: {group[d.text] for d in kept.documents(split)} for split in ("train", "held_out")}
    assert not sides["train"] & sides["held_out"] and sides["train"] | sides["held_out"] == set(range(60))
    assert 8 <= len(sides["held_out"]) <= 28, "about 0.3 of the clusters"
    assert sum(len(list(kept.documents(split))) for split in sides) == len(lines)

    step = '[[corpus.steps]]\nuse = "length"\nmax_line = 100000\n[[corpus.steps]]\nuse = "minhash"\n'
    single = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["a.jsonl"]', step))
    left = [group[d.text] for split in sides for d in single.documents(split)]
    assert sorted(left) == list(range(60)), "one of each cluster stays"
    assert single.summary["web"]["dropped_for"] == {"near copy": len(lines) - 60}
    ledger = pa.parquet.read_table(tmp_path / "cut" / "ledger.parquet").to_pylist()
    assert sum(row["reason"] == "near copy" for row in ledger) == len(lines) - 60
    assert sum(row["step"] == "length" for row in ledger) == len(lines), "what is kept is in the ledger too"


def test_a_filtered_copy_does_not_take_its_cluster_along(tmp_path: Path) -> None:
    bases = [" ".join(words(i)) for i in range(10)]
    texts = [text for base in bases for text in (base, base + " " + "x" * 500)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    step = '[[corpus.steps]]\nuse = "minhash"\n[[corpus.steps]]\nuse = "length"\nmax_characters = 800\n'
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["a.jsonl"]', step))
    left = [d.text for split in ("train", "held_out") for d in cut.documents(split)]
    assert sorted(left) == sorted(bases), "also where the long one comes first"
    assert cut.summary["web"]["dropped_for"] == {"too long": 10}


def test_clusters_are_connected_components_in_any_order() -> None:
    ids = [f"{i:02d}" for i in range(12)]
    links = [[1], [1, 2], [2], [3], [3], [9], [4, 5], [5], [4], [6], [7], [6, 7]]
    expected = dict(zip(ids, ["00", "00", "00", "03", "03", "05", "06", "06", "06", "09", "09", "09"], strict=True))
    for seed in range(20):
        order = np.random.Generator(np.random.Philox(seed)).permutation(12)
        named = clusters([ids[i] for i in order], [links[i] for i in order])
        assert dict(zip([ids[i] for i in order], named, strict=True)) == expected


def test_urls_are_stable_and_no_file_is_lost_to_another(tmp_path: Path) -> None:
    for name in ("one/text", "two/text"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text(f"the text of {name}")
    (tmp_path / "two" / "text" / "b.txt").write_text("b")
    made = recipe(tmp_path, 'read = "text"\npaths = ["one/text/*.txt", "two/text", "two/**/b.txt"]')
    urls = [file.url for file in source_files(made.corpus.sources[0])]
    assert urls == [str(tmp_path / "one/text/a.txt"), str(tmp_path / "two/text/a.txt"), "two/text/b.txt"]


def test_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'web': no file matches .*nothing"):
        cut_of(tmp_path, recipe(tmp_path, 'read = "text"\npaths = ["nothing/*.txt"]'))

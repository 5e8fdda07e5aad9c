"""Closed form: documents that stand together in a file are strangers where they are written; repositories are not."""

import json
from pathlib import Path

import numpy as np

from pretrain.corpus.cut import Cut
from pretrain.recipe.read import load
from pretrain.run.stages import execute

MUTANTS = [("src/pretrain/corpus/cut.py", 'key(seed, "documents", document.group or document.id)', "document.place")]
RECIPE = """
[run]
name = "mixed"
[[corpus.sources]]
name = "lines"
read = "jsonl"
paths = ["*.jsonl"]
[corpus]
held_out = 0.0
[train]
steps = 1
"""


def test_documents_of_two_files_are_mixed_evenly_over_the_whole_source(tmp_path: Path) -> None:
    (tmp_path / "mixed.toml").write_text(RECIPE)
    for file in range(2):
        lines = [json.dumps({"text": f"{i} is document {file * 1000 + i}"}) for i in range(1000)]
        (tmp_path / f"{file}.jsonl").write_text("\n".join(lines))
    execute(load(str(tmp_path / "mixed.toml")), tmp_path / "runs" / "mixed", last="corpus")
    (folder,) = (tmp_path / "store").glob("corpus-*")
    found = np.array([int(one.text.split()[-1]) for one in Cut(folder).documents("train")])
    assert np.array_equal(np.sort(found), np.arange(2000))
    cells = np.histogram2d(np.arange(2000), found, bins=(10, 10))[0]
    assert ((cells - 20) ** 2 / 20).sum() < 145  # 81 degrees of freedom: p < 2e-5
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.1, "and neighbours do not keep together"

"""Closed form: files of an object store are read as those of a disk; what is missing is said."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.corpus.build import Build
from pretrain.corpus.cut import Cut
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import source_files
from pretrain.recipe.read import load

MUTANTS = [("src/pretrain/corpus/sources.py", "digest(key.encode())", 'digest(b"")')]
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["{paths}"]
[train]
steps = 1
batch = 64
sequence = 64
"""


def cut_of(folder: Path, paths: str, processes: int) -> dict[str, str]:
    (folder / "x.toml").write_text(RECIPE.format(paths=paths))
    corpus, steps = load(str(folder / "x.toml")).corpus, Steps(folder / "steps")
    shutil.rmtree(folder / "cut", ignore_errors=True)
    (folder / "cut").mkdir()
    steps.root.mkdir(exist_ok=True)
    files = {source.name: source_files(source) for source in corpus.sources}
    with find("corpus.engine", "local").Local(processes).open(steps.root) as pool:
        Build(corpus, 5, steps, pool, lambda said: None).run(files, folder / "cut")
    cut = Cut(folder / "cut")
    return {one.text: one.file for split in ("train", "held_out") for one in cut.documents(split)}


@pytest.mark.parametrize(("system", "processes"), [("memory", 0), ("file", 2)])
def test_object_stores(tmp_path: Path, system: str, processes: int) -> None:
    there = f"{system}://{tmp_path}/bucket"
    for i in range(3):
        with fsspec.open(f"{there}/deep/{i}.jsonl.gz", "w", compression="gzip", auto_mkdir=True) as file:
            file.write("\n".join(json.dumps({"text": f"text {i} {j}"}) for j in range(4)))  # type: ignore[attr-defined]
    found = cut_of(tmp_path, f"{there}/deep/*.jsonl.gz", processes)
    assert found == {f"text {i} {j}": f"{there}/deep/{i}.jsonl.gz" for i in range(3) for j in range(4)}
    assert cut_of(tmp_path, f"{there}/deep", processes) == found
    before = source_files(load(str(tmp_path / "x.toml")).corpus.sources[0])
    with fsspec.open(f"{there}/deep/1.jsonl.gz", "w", compression="gzip") as file:
        file.write(json.dumps({"text": "another"}))  # type: ignore[attr-defined]
    after = source_files(load(str(tmp_path / "x.toml")).corpus.sources[0])
    assert [one.digest == other.digest for one, other in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("memory://nowhere/*.jsonl", "no file is there"),
        ("nosuch://a/b", r"nosuch.*expected pip install 'pretrain\[remote\]'"),
    ],
)
def test_what_is_not_there(tmp_path: Path, paths: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cut_of(tmp_path, paths, 0)

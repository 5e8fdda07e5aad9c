"""Closed form: files of an object store are read as those of a disk; what is missing is said."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.base.files import digest_file
from pretrain.corpus.build import Build
from pretrain.corpus.cut import Cut
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import Digests, source_files
from pretrain.recipe.read import load

MUTANTS = [
    ("src/pretrain/corpus/sources.py", "digest(key.encode())", 'digest(b"")'),
    (
        "src/pretrain/corpus/sources.py",
        "not path.resolve().is_relative_to(fixed)",
        "not path.is_relative_to(fixed)",
    ),
    ("src/pretrain/corpus/sources.py", "folder != folder.parent and goes_round(folder.parent)", "False"),
    ("src/pretrain/corpus/sources.py", "found[:-1] == state", "found[:2] == state[:2]"),
    ("src/pretrain/corpus/sources.py", '"a link" if p.is_symlink() else ', ""),
]
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "{read}"
paths = ["{paths}"]
[train]
steps = 1
batch = 64
sequence = 64
"""


def made(folder: Path, read: str, paths: str, processes: int = 0) -> Cut:
    (folder / "x.toml").write_text(RECIPE.format(read=read, paths=paths))
    corpus, steps = load(str(folder / "x.toml")).corpus, Steps(folder / "steps")
    shutil.rmtree(folder / "cut", ignore_errors=True)
    (folder / "cut").mkdir()
    steps.root.mkdir(exist_ok=True)
    files = {source.name: source_files(source) for source in corpus.sources}
    with find("corpus.engine", "local").Local(processes).open(steps.root) as pool:
        Build(corpus, 5, steps, pool, lambda said: None).run(files, folder / "cut")
    return Cut(folder / "cut")


def cut_of(folder: Path, paths: str, processes: int) -> dict[str, str]:
    cut = made(folder, "jsonl", paths, processes)
    return {one.text: one.file for split in ("train", "held_out") for one in cut.documents(split)}


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a bucket of an S3 server of our own."""
    pytest.importorskip("s3fs", reason="s3fs (the extra `remote`) is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(fsspec.config.conf)
    fsspec.config.conf["s3"] = {
        "key": "a", "secret": "b", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}
    }  # fmt: skip
    fsspec.filesystem("s3").mkdir("pages")
    yield "s3://pages"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)


@pytest.mark.parametrize(("system", "processes"), [("memory", 0), ("file", 2), ("s3", 0)])
def test_object_stores(tmp_path: Path, request: pytest.FixtureRequest, system: str, processes: int) -> None:
    there = request.getfixturevalue("bucket") if system == "s3" else f"{system}://{tmp_path}/bucket"
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
        ("memory://nowhere/a.jsonl", "no such file"),
        ("broken://a/b", "broken://a/b: cannot be reached: RuntimeError: no route; expected"),
        ("nosuch://a/b", r"nosuch.*expected pip install 'pretrain\[remote\]'"),
    ],
)
def test_what_is_not_there(tmp_path: Path, paths: str, message: str) -> None:
    class Broken(fsspec.AbstractFileSystem):
        protocol = "broken"

        def find(self, path: str, *more: object, **options: object) -> list[str]:
            raise RuntimeError("no route\nat all")

    fsspec.register_implementation("broken", Broken, clobber=True)
    with pytest.raises(UserError, match=message):
        cut_of(tmp_path, paths, 0)


def test_links_are_followed_inside_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "away" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for path in ("away/secret.txt", "away/deep/too.txt", "in/own.txt"):
        (tmp_path / path).write_text(f"text of {path}")
    (tmp_path / "in" / "deep" / "same.txt").symlink_to("../own.txt")
    (tmp_path / "in" / "out.txt").symlink_to(tmp_path / "away" / "secret.txt")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "away" / "deep")
    (tmp_path / "in" / "deep" / "loop").symlink_to("..")  # what it leads to is read once
    (tmp_path / "named").symlink_to(tmp_path / "in")
    cut = made(tmp_path, "text", "named/**/*.txt")
    rows = {row["url"]: row["reason"] for row in cut.verdicts()}
    away = "a link that leaves the folder"
    kept = {"named/own.txt": None, "named/deep/same.txt": None}
    assert rows == {**kept, "named/out.txt": away, "named/folder/too.txt": away}
    rows = {row["url"]: row["reason"] for row in made(tmp_path, "repository", "named").verdicts()}
    links = dict.fromkeys(("named/out.txt", "named/folder", "named/deep/same.txt", "named/deep/loop"), "a link")
    assert rows == {"named/own.txt": None, **links}
    before = source_files(load(str(tmp_path / "x.toml")).corpus.sources[0])
    (tmp_path / "in" / "folder").unlink()
    assert source_files(load(str(tmp_path / "x.toml")).corpus.sources[0]) != before


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    file, digests = tmp_path / "a", Digests()
    file.write_text("one")
    assert digests.of(file) == digest_file(file) and not digests.known, "it may be written again in this tick"
    os.utime(file, (1000, 1000))
    assert digests.of(file) == digest_file(file) and digests.learned
    digests.known[str(file)][-1] = "remembered"
    assert digests.of(file) == "remembered"
    file.write_text("two")
    os.utime(file, (1000, 1001))
    assert digests.of(file) == digest_file(file)

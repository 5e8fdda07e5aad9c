"""Twin: every record is a document or a flaw, copies fall on one side of the split, all is accounted for."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.corpus.build import Build
from pretrain.corpus.cut import Cut
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import source_files
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe

MUTANTS = [
    ("src/pretrain/corpus/cut.py", 'cluster[_rows(mine)] = mine["cluster"]', "pass"),
    ("src/pretrain/corpus/cut.py", "np.flatnonzero(survivors(chain, lost) & (sizes > 1))", "np.flatnonzero(sizes > 1)"),
]
Local = find("corpus.engine", "local").Local
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


def cut_of(folder: Path, made: Recipe, *, processes: int = 0) -> Cut:
    files = {source.name: source_files(source) for source in made.corpus.sources}
    shutil.rmtree(folder / "cut", ignore_errors=True)
    (folder / "cut").mkdir()
    (folder / "steps").mkdir(exist_ok=True)
    with Local(processes).open(folder / "steps") as pool:
        Build(made.corpus, 5, Steps(folder / "steps"), pool, lambda said: None).run(files, folder / "cut")
    return Cut(folder / "cut")


def test_text_files(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_bytes("\ufeffnaïve\r\ntext".encode())
    (tmp_path / "in" / "deep" / "b.txt").write_text("more")
    (tmp_path / "in" / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "in" / "empty.txt").write_text(" \n")
    (tmp_path / "in" / "skip.txt").write_text("skipped")
    made = recipe(tmp_path, 'read = "text"\npaths = ["in/**/*.txt"]\nexclude = ["**/skip*"]')
    (tmp_path / "in" / "cut.txt").write_bytes(gzip.compress(b"a text that is cut " * 99)[:-20])
    cut = cut_of(tmp_path, made)
    found = {document.url: document.text for split in ("train", "held_out") for document in cut.documents(split)}
    assert found == {"in/a.txt": "naïve\ntext", "in/deep/b.txt": "more"}
    assert cut.summary["web"]["dropped_for"] == {"not UTF-8": 1, "empty": 1, "damaged compression": 1}


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
    (tmp_path / "first.jsonl").write_text('{"body": null}\n{"bodies": "x"}\n')
    cut = cut_of(tmp_path, recipe(tmp_path, f'read = "jsonl"\ntext = "body"\npaths = ["a.{ending}", "first.jsonl"]'))
    reasons = {"no JSON": 1, "no text": 2, "no field 'body', nearest: bodies": 1}
    assert cut.summary["web"]["dropped_for"] == reasons, "a file that has no such field takes down itself alone"
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
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    pa.parquet.write_table(pa.table({"contents": ["x"]}), tmp_path / "other.parquet")
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "parquet"\ntext = "content"\npaths = ["*.parquet"]'))
    reasons = {"no text": 1, "damaged, or no Parquet": 2, "no column 'content', nearest: contents": 1}
    assert cut.summary["web"]["dropped_for"] == reasons
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
    rows = list(single.verdicts())
    assert len(rows) == len(lines) and sum(row["reason"] == "near copy" for row in rows) == len(lines) - 60


def test_a_filtered_copy_does_not_take_its_cluster_along(tmp_path: Path) -> None:
    bases = [" ".join(words(i)) for i in range(10)]
    pairs = [(base, base + " " + "x" * 500) for base in bases]
    texts = [text for i, pair in enumerate(pairs) for text in (pair if i % 2 else reversed(pair))]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    step = '[[corpus.steps]]\nuse = "minhash"\n[[corpus.steps]]\nuse = "length"\nmax_characters = 800\n'
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["a.jsonl"]', step))
    left = [d.text for split in ("train", "held_out") for d in cut.documents(split)]
    assert sorted(left) == sorted(bases), "also where the long one comes first"
    assert cut.summary["web"]["dropped_for"] == {"too long": 10}


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


STEPS = """
[[corpus.steps]]
use = "length"
min_characters = {least}
[[corpus.steps]]
use = "lines"
[[corpus.steps]]
use = "exact"
[[corpus.steps]]
use = "length"
max_line = 4000
[[corpus.steps]]
use = "minhash"
"""


def many(folder: Path, count: int = 120) -> None:
    """Documents with copies, near copies, shared lines and flaws, over several files."""
    for file in range(6):
        lines = []
        for i in range(file, count, 6):
            text = "\n".join([" ".join(words(i % 50, 60)), "a notice that stands on every page of it", f"end {i % 70}"])
            lines.append(json.dumps({"text": text}) if i % 17 else "{")
        (folder / f"{file}.jsonl").write_text("\n".join(lines))


def said(folder: Path) -> dict[str, bytes]:
    """What a cut holds, to the byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_bytes_with_any_number_of_workers_and_after_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tmp_path)
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 3000)
    made = recipe(tmp_path, 'read = "jsonl"\npaths = ["*.jsonl"]', STEPS.format(least=1))
    first = cut_of(tmp_path, made)
    alone = said(first.folder)
    assert len([name for name in alone if name.startswith("verdicts")]) >= 3
    shutil.rmtree(tmp_path / "steps")
    cut_of(tmp_path, made, processes=2)
    assert said(first.folder) == alone
    shutil.rmtree(tmp_path / "steps")
    for step in ("length", "exact"):  # a run that was killed left some files, and partial ones
        files = sorted((tmp_path / "steps").glob(f"{step}/*.parquet"))
        for file in files[::2]:
            file.with_suffix(".json").unlink()
            file.write_bytes(b"half")
        cut_of(tmp_path, made)
        assert said(first.folder) == alone


def test_counts_add_up_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(tmp_path)
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 3000)
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["*.jsonl"]', STEPS.format(least=480)))
    rows = list(cut.verdicts())
    assert len(rows) == len({row["id"] for row in rows}) == 120
    kept = [d for split in ("train", "held_out") for d in cut.documents(split)]
    assert sorted(d.id for d in kept) == sorted(row["id"] for row in rows if row["split"] != "dropped")
    assert sum(cut.summary["web"]["dropped_for"].values()) + len(kept) == 120
    assert all((row["reason"] is None) == (row["split"] != "dropped") for row in rows)
    for part in json.loads((cut.folder / "parts.json").read_bytes()):
        alive = json.loads((tmp_path / "steps" / "read-jsonl" / f"{part['base']}.json").read_bytes())["account"]
        before = alive["rows_out"]
        assert alive["rows_in"] == before + sum(alive["reasons"].values())
        for step, key in part["steps"]:
            account = json.loads((tmp_path / "steps" / step / f"{key}.json").read_bytes())["account"]
            assert account["rows_in"] == before == account["rows_out"] + sum(account["reasons"].values())
            before = account["rows_out"]


def test_a_changed_filter_is_the_first_to_run_again(tmp_path: Path) -> None:
    many(tmp_path)
    text = STEPS.format(least=1)
    cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["*.jsonl"]', text))

    def made() -> dict[str, int]:
        return {path.name: len(list(path.glob("*.json"))) for path in (tmp_path / "steps").iterdir() if path.is_dir()}

    before = made()
    cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["*.jsonl"]', text.replace("4000", "3999")))
    again = {name: count - before[name] for name, count in made().items() if count != before[name]}
    late = {"length", "minhash", "minhash-keys", "minhash-clusters", "held-out-clusters"}
    assert set(again) == late and again["length"] == 1, "lines and exact stand before it"


def test_lines_and_runs_of_words_are_taken_out_where_they_repeat(tmp_path: Path) -> None:
    same, long = "the very same line in many documents", " ".join(words(1, 80))
    texts = [f"{' '.join(words(10 + i, 20))}\n{same}\n{' '.join(words(30 + i, 9))} {long} end{i}" for i in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["a.jsonl"]', '[[corpus.steps]]\nuse = "lines"'))
    left = sorted(
        (d for split in ("train", "held_out") for d in cut.documents(split)), key=lambda document: document.place
    )
    assert [one.text for one in left] == [texts[0], *(text.replace(f"{same}\n", "") for text in texts[1:])]
    step = '[[corpus.steps]]\nuse = "substring"\nwords = 40\n'
    cut = cut_of(tmp_path, recipe(tmp_path, 'read = "jsonl"\npaths = ["a.jsonl"]', step))
    left = sorted(
        (d for split in ("train", "held_out") for d in cut.documents(split)), key=lambda document: document.place
    )
    assert [one.text for one in left] == [texts[0], *(text.replace(long, "") for text in texts[1:])]


def test_a_damaged_file_of_a_step_is_named_and_made_anew(tmp_path: Path) -> None:
    many(tmp_path)
    made = recipe(tmp_path, 'read = "jsonl"\npaths = ["*.jsonl"]', STEPS.format(least=1))
    whole = said(cut_of(tmp_path, made).folder)
    for folder in ("read-jsonl", "length", "minhash-keys"):
        file = next(path for path in (tmp_path / "steps" / folder).iterdir() if path.suffix != ".json")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        for path in (tmp_path / "steps" / "lines").glob("*.json") if folder != "minhash-keys" else ():
            path.unlink()
        shutil.rmtree(tmp_path / "steps" / "held-out-clusters")
        shutil.rmtree(tmp_path / "steps" / "minhash-clusters")
        with pytest.raises(UserError, match=rf"{file.name}: content differs from its digest"):
            cut_of(tmp_path, made)
        assert said(cut_of(tmp_path, made).folder) == whole


def test_the_next_crawl_is_held_against_the_last(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder, seeds in ((first, range(40)), (second, range(20, 70))):
        folder.mkdir()
        texts = [" ".join([*words(seed, 80), "and an end", folder.name if seed % 2 else "the same"]) for seed in seeds]
        (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    step = '[[corpus.steps]]\nuse = "minhash"\n'
    old = cut_of(first, recipe(first, 'read = "jsonl"\npaths = ["a.jsonl"]', step))
    steps = [{"use": "minhash", "version": find("corpus.dedup", "minhash").VERSION}]
    (old.folder / "key.json").write_text(json.dumps({"key": {"steps": steps}}))
    (first / "a.jsonl").unlink()  # it is not read again
    shutil.rmtree(first / "steps")
    late = f'{step}against = ["{old.folder}"]\n'
    cut = cut_of(second, recipe(second, 'read = "jsonl"\npaths = ["a.jsonl"]', late))
    left = sorted(row["place"] for row in cut.verdicts() if row["split"] != "dropped")
    assert left == list(range(21, 51)), "what the last crawl kept, or nearly so, goes"
    assert cut.summary["web"]["dropped_for"] == {"near copy": 20}
    other = late + "bands = 9\n"
    with pytest.raises(UserError, match="its minhash has other options"):
        cut_of(second, recipe(second, 'read = "jsonl"\npaths = ["a.jsonl"]', other))

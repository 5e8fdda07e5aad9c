"""Twin: candidates are joined as a brute force over all pairs joins them; also over several ranges, and in a corpus."""

import json
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import leaf
from pretrain.corpus import alike, exchange
from pretrain.corpus.alike import join_alike, links, save_sets
from pretrain.corpus.build import Build
from pretrain.corpus.clusters import KEYS, MEMBERS, Clustering, number
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Document
from pretrain.corpus.exchange import read_range, write_rows
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import source_files
from pretrain.corpus.task import Journal, Task
from pretrain.recipe.read import load

MUTANTS = [
    ("src/pretrain/corpus/alike.py", "and jaccard(mine, its) >= least", ""),
    ("src/pretrain/corpus/alike.py", "both / max(len(one) + len(other) - both, 1)", "both / max(len(one), 1)"),
    ("src/pretrain/corpus/alike.py", "home += group if home else []", "pass"),
    ("src/pretrain/corpus/alike.py", "whole[row - 1] if row else rows", "whole[row] if row else rows"),
    ("src/pretrain/corpus/dedup/minhash.py", "return np.unique(shingles)", "return np.unique(hashes)"),
]
Minhash = leaf("corpus.dedup", "minhash")


def shingles(text: str, width: int) -> frozenset[tuple[str, ...]]:
    words = text.split()
    return frozenset(tuple(words[i : i + width]) for i in range(max(len(words) - width + 1, 1)))


def jaccard(one: frozenset, other: frozenset) -> float:
    return len(one & other) / len(one | other)


def components(nodes: range, pairs: list[tuple[int, int]]) -> dict[int, frozenset[int]]:
    groups = {node: frozenset([node]) for node in nodes}
    for one, other in pairs:
        joined = groups[one] | groups[other]
        groups |= dict.fromkeys(joined, joined)
    return groups


def here(tasks: list[Task]) -> None:
    for task in tasks:
        task.function(*task.arguments, Journal())


def texts(seed: int, count: int) -> list[str]:
    """Some texts, and variants of them in which more and more words are others."""
    random = np.random.Generator(np.random.Philox(seed))
    out = list[str]()
    while len(out) < count:
        base = [f"w{i}" for i in random.integers(0, 300, random.integers(3, 80))]
        for _ in range(random.integers(1, 6)):
            out.append(" ".join(base))
            for place in random.integers(0, len(base), max(len(base) // 20, 1)):
                base[place] = f"v{random.integers(0, 300)}"
    return out[:count]


@pytest.mark.parametrize("width", [10**9, 8000])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), least=st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_documents_are_joined_as_all_pairs_say(
    tmp_path_factory: pytest.TempPathFactory, width: int, seed: int, least: float
) -> None:
    step = Minhash(shingle=3, bands=20, rows=1)
    found = [Document("0" * 32, "web", "u", text) for text in texts(seed, 30)]
    keys = [step.keys(one) for one in found]
    sets = [shingles(one.text, 3) for one in found]
    pairs = [
        (i, j)
        for i, j in combinations(range(30), 2)
        if (keys[i] == keys[j]).all(1).any() and jaccard(sets[i], sets[j]) >= least
    ]
    steps, files, stored = Steps(tmp_path_factory.mktemp("x")), [], {}
    for part in range(1, 4):  # ten documents each
        mine = range(10 * (part - 1), 10 * part)
        table = np.zeros(20 * len(mine), KEYS)
        table["number"] = number(part, np.repeat(np.arange(10), 20))
        whole = np.concatenate([keys[i] for i in mine])
        table["key"], table["check"] = whole[:, 0], whole[:, 1]
        files.append(steps.file("keys", part, ".npy"))
        write_rows(files[-1], table)
        stored[part] = steps.file("shingles", part, ".npy")
        save_sets(stored[part], [step.shingles(found[i]) for i in mine])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "RANGE_BYTES", width)
        members = Clustering(steps, "c", seed, here).members(files, partial(join_alike, stored, least))
    rows = read_range(members, 0, 1, MEMBERS)
    name = {int(number(1 + i // 10, np.array([i % 10]))[0]): i for i in range(30)}
    got = {name[int(row["key"])]: name[int(row["cluster"])] for row in rows}
    twin = components(range(30), pairs)
    assert got == {i: min(group) for i, group in twin.items() if len(group) > 1}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.sets(st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_links_connect_what_is_alike(count: int, some: set[tuple[int, int]]) -> None:
    pairs = [(i, j) for i, j in combinations(range(1, count + 1), 2) if (i, j) in some or (j, i) in some]
    found = links(range(1, count + 1), lambda one, other: tuple(sorted((one, other))) in pairs)
    assert set(found) <= set(pairs)
    nodes = range(1, count + 1)
    assert components(nodes, found) == components(nodes, pairs)


def test_few_comparisons_and_no_earlier_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    assert len(links(range(1, 1001), lambda one, other: asked.append(1) or True)) == 999 == len(asked)
    monkeypatch.setattr(alike, "COMPARED", 5)
    asked.clear()
    assert links(range(1, 101), lambda one, other: bool(asked.append(1))) == [] and len(asked) < 500
    with pytest.raises(ValueError, match="verify: an index of `against` holds keys, no shingles"):
        Minhash(verify=0.8, against=("store/corpus-0",))


RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["a.jsonl"]
[[corpus.steps]]
use = "minhash"
bands = 60
rows = 1
{verify}
[train]
steps = 1
batch = 64
sequence = 64
"""


def test_a_corpus_keeps_candidates_that_are_not_alike(tmp_path: Path) -> None:
    lines = texts(7, 60)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))
    kept = {}
    for verify in ("", "verify = 0.6"):
        (tmp_path / "x.toml").write_text(RECIPE.format(verify=verify))
        made = load(str(tmp_path / "x.toml"))
        folder = tmp_path / f"cut {verify}"
        folder.mkdir()
        with leaf("corpus.engine", "local")(0).open(tmp_path) as pool:
            files = {source.name: source_files(source) for source in made.corpus.sources}
            Build(made.corpus, 5, Steps(tmp_path / "steps"), pool, lambda said: None).run(files, folder)
        documents = [one for split in ("train", "held_out") for one in Cut(folder).documents(split)]
        kept[verify] = {one.place for one in documents}
    sets = [shingles(line, 5) for line in lines]
    near = components(range(60), [(i, j) for i, j in combinations(range(60), 2) if jaccard(sets[i], sets[j]) >= 0.6])
    assert kept["verify = 0.6"] == {min(group) + 1 for group in near.values()}
    assert kept[""] < kept["verify = 0.6"]

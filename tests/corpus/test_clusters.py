"""Twin: clusters of documents that share a key, by exchanges, are those of union-find; also over several ranges."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.corpus import clusters, exchange
from pretrain.corpus.clusters import KEYS, MEMBERS, Clustering, number
from pretrain.corpus.exchange import read_range, write_rows
from pretrain.corpus.parts import Steps
from pretrain.corpus.task import Journal, Task

MUTANTS = [
    ("src/pretrain/corpus/clusters.py", 'np.minimum(least, rows["node"])', 'rows["node"]'),
    ("src/pretrain/corpus/clusters.py", 'larger = rows["other"] > rows["node"]', 'larger = rows["other"] < 0'),
    (
        "src/pretrain/corpus/clusters.py",
        'np.concatenate([rows["other"], rows["node"]])',
        'np.concatenate([rows["other"]] * 2)',
    ),
]


def twin(keys: list[tuple[int, int]]) -> dict[int, frozenset[int]]:
    groups = {document: {document} for document, _ in keys}
    for _ in keys:
        for document, key in keys:
            for other, same in keys:
                if same == key and groups[document] is not groups[other]:
                    joined = groups[document] | groups[other]
                    groups |= dict.fromkeys(joined, joined)
    return {document: frozenset(group) for document, group in groups.items()}


def here(tasks: list[Task]) -> None:
    for task in tasks:
        task.function(*task.arguments, Journal())


def found(folder: Path, keys: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    steps, files = Steps(folder), []
    for part in range(3):
        mine = [(document, key) for document, key in keys if document % 3 == part]
        table = np.zeros(len(mine), KEYS)
        table["number"] = number(part, np.array([document // 3 for document, _ in mine], np.int64))
        table["key"] = [(key * 0x9E3779B97F4A7C15) % 2**64 for _, key in mine]
        files.append(steps.file("keys", [part, str(mine)], ".npy"))
        write_rows(files[-1], table)
    rows = read_range(Clustering(steps, "clusters", str(keys), here).members(files), 0, 1, MEMBERS)
    name = {int(number(i % 3, np.array([i // 3]))[0]): i for i in range(99)}
    return {name[int(row["key"])]: (name[int(row["cluster"])], int(row["size"])) for row in rows}


@pytest.mark.parametrize("width", [10**9, 200])
@settings(max_examples=25, deadline=None)
@given(keys=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), max_size=40))
def test_clusters(tmp_path_factory: pytest.TempPathFactory, width: int, keys: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "RANGE_BYTES", width)
        got = found(tmp_path_factory.mktemp("x"), keys)
    order = {i: (i % 3, i // 3) for i in range(99)}
    expected = {
        document: (min(group, key=order.__getitem__), len(group))
        for document, group in twin(keys).items()
        if len(group) > 1
    }
    assert got == expected


def test_a_long_chain_takes_few_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    large = clusters.large_star
    monkeypatch.setattr(clusters, "large_star", lambda *arguments: (rounds.append(1), large(*arguments)))
    got = found(tmp_path, [(i, i + j) for i in range(60) for j in (0, 1)])
    assert {size for _, size in got.values()} == {60} and len(rounds) < 10

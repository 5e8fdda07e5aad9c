"""Closed form: the share that is held out, of clusters of any size; no source loses its last one to the split."""

from pathlib import Path

import numpy as np
import pytest

from pretrain.base.random import splitmix
from pretrain.corpus.clusters import number
from pretrain.corpus.cut import DRAWN, RANKED, HoldOut, cluster_draws
from pretrain.corpus.exchange import write_rows
from pretrain.corpus.parts import StepFile
from pretrain.corpus.task import Journal

MUTANTS = [
    ("src/pretrain/corpus/cut.py", 'key(seed, "held out", one) for', "one for"),
    ("src/pretrain/corpus/cut.py", "np.uint64)[np.cumsum(new) - 1]", "np.uint64)[np.arange(len(new)) % new.sum()]"),
    ("src/pretrain/corpus/cut.py", "for draw in least} - spared", "for draw in least}"),
    ("src/pretrain/corpus/cut.py", " & ~spared", ""),
]
SIZES = (1, 3, 150)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_large_cluster_is_held_out_no_sooner_than_a_small_one(tmp_path: Path, share: float) -> None:
    rows = np.concatenate([np.full(size, i * 1000 + size) for i in range(1500) for size in SIZES]).astype(np.uint64)
    table = np.zeros(len(rows), RANKED)
    table["cluster"], table["key"], table["number"] = rows, splitmix(rows), number(1, np.arange(len(rows)))
    table["rank"] = np.random.Generator(np.random.Philox(7)).integers(0, 2**64, len(rows), np.uint64)
    write_rows(ranked := StepFile(tmp_path / "ranked.npy"), table)
    cluster_draws([ranked], 0, 1, 11, out := StepFile(tmp_path / "drawn.npy"), Journal())
    drawn = np.load(out.path)
    held = np.isin(np.arange(len(rows)), sorted(HoldOut(int(share * 2**64)).rows(drawn)))
    for size in SIZES:
        of_size = held[rows % 1000 == size].reshape(1500, size)
        assert (of_size.all(1) == of_size.any(1)).all(), "a cluster is held out whole"
        assert abs(of_size.any(1).mean() - share) < 4 * (share * (1 - share) / 1500) ** 0.5


def test_every_source_keeps_a_cluster_to_train_on() -> None:
    drawn = np.zeros(6, DRAWN)
    drawn["key"], drawn["draw"] = number(1, np.arange(6)), [2**60, 2**61, 2**62, 2**63, 3, 2]
    hold_out = HoldOut.of(0.5, [("a", ([2**60, 2**61], 2**62)), ("b", ([2], 3)), ("a", ([], -1)), ("none", ([], -1))])
    assert hold_out.rows(drawn) == {0, 1, 3, 5}, "of a and of b the greatest draws stay"
    assert HoldOut.of(1e-9, [("a", ([5 << 60, 6 << 60], 7 << 60))]).below == 5 << 60, "one at least is held out"
    alone = HoldOut.of(0.5, [("a", ([5], 5)), ("b", ([3], 3))])
    assert alone.rows(drawn) == set() and HoldOut.of(0.0, [("a", ([5, 6], 7))]).rows(drawn) == set()

"""Property: keyed permutations are bijections that look uniform, and draws depend on their row alone."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.random import generator, key, permute, permute_keyed, uniform, unpermute

MUTANTS = [
    ("src/pretrain/base/random.py", "ROUNDS = 6", "ROUNDS = 1"),
    (
        "src/pretrain/base/random.py",
        "tweak = splitmix(keys + np.uint64(number))",
        "tweak = splitmix(np.uint64(number))",
    ),
    ("src/pretrain/base/random.py", "while outside.size:", "while False:"),
]


@given(st.integers(1, 3000), st.integers(0, 2**40), st.text(max_size=5))
def test_a_permutation_is_a_bijection_and_has_an_inverse(n: int, seed: int, tag: str) -> None:
    there = permute(np.arange(n), n, seed, tag)
    assert np.array_equal(np.sort(there), np.arange(n))
    assert np.array_equal(unpermute(there, n, seed, tag), np.arange(n))


@given(st.integers(1, 2**61), st.integers(0, 2**30), st.data())
def test_huge_ranges_cost_no_memory(n: int, seed: int, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, n - 1))
    assert 0 <= permute(i, n, seed) < n
    assert unpermute(permute(i, n, seed), n, seed) == i


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_order_of_a_few_things_is_equally_likely(n: int) -> None:
    draws = 6000
    seen = Counter(tuple(permute(np.arange(n), n, seed, "orders")) for seed in range(draws))
    orders = list(itertools.permutations(range(n)))
    expected = draws / len(orders)
    chi_squared = sum((seen[order] - expected) ** 2 / expected for order in orders)
    assert chi_squared < 2.5 * len(orders) + 10  # 23 degrees of freedom: above 70 has p < 1e-6


def test_neighbours_part_evenly_in_a_large_range() -> None:
    n, buckets = 100_000, 50
    there = permute(np.arange(n), n, 7, "spread")
    counts = np.bincount(there[:5000] * buckets // n, minlength=buckets)
    assert ((counts - 100) ** 2 / 100).sum() < 110  # 49 degrees of freedom: p < 1e-6
    assert abs(np.corrcoef(np.arange(n), there)[0, 1]) < 0.02


def test_each_element_may_have_its_own_key_and_range() -> None:
    sizes, keys = np.array([5, 9, 1000]), np.array([key(1, "a"), key(1, "b"), key(1, "c")], np.uint64)
    together = permute_keyed(np.array([4, 8, 999]), sizes, keys)
    assert together.tolist() == [permute(4, 5, 1, "a"), permute(8, 9, 1, "b"), permute(999, 1000, 1, "c")]


def test_an_index_outside_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        permute(5, 5, 0)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5, unique=True), st.integers(0, 99))
def test_a_rows_draw_depends_on_its_number_alone(rows: list[int], seed: int) -> None:
    together = uniform(seed, np.array(rows), "tag", (3, 4))
    for i, row in enumerate(rows):
        assert np.array_equal(together[i], uniform(seed, np.array([row]), "tag", (3, 4))[0])


def test_draws_are_uniform_and_differ_by_tag() -> None:
    one, other = (uniform(3, np.arange(400), tag, (250,)) for tag in ("one", "other"))
    assert one.min() >= 0 and one.max() < 1
    assert abs(one.mean() - 0.5) < 0.005 and abs(one.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(one[:, :-1].ravel(), one[:, 1:].ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(one[:-1].ravel(), one[1:].ravel())[0, 1]) < 0.015


def test_generators_are_keyed() -> None:
    assert generator(1, "a").integers(2**60) == generator(1, "a").integers(2**60)
    assert generator(1, "a").integers(2**60) != generator(1, "b").integers(2**60)
    assert key(1, "ab", "c") != key(1, "a", "bc")

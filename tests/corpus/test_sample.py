"""Closed form and property: bytes by weight, what one source lacks given by the others, never more than was asked."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pretrain.corpus.sample import shares

MUTANTS = [
    ("src/pretrain/corpus/sample.py", "size -= sum(there[name] for name in dry)", "pass"),
    ("src/pretrain/corpus/sample.py", "if weight > 0", ""),
]


def test_shares_follow_the_weights() -> None:
    assert shares(100, {"a": 3, "b": 1}, {"a": 500, "b": 500}) == {"a": 75, "b": 25}
    assert shares(100, {"a": 3, "b": 1, "c": 0}, {"a": 500, "b": 500, "c": 500}) == {"a": 75, "b": 25, "c": 0}
    assert shares(100, {"a": 8, "b": 1, "c": 1}, {"a": 20, "b": 500, "c": 30}) == {"a": 20, "b": 50, "c": 30}
    assert shares(100, {"a": 1, "b": 1}, {"a": 20, "b": 30}) == {"a": 20, "b": 30}


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10**6)), min_size=1, max_size=6),
)
def test_all_that_is_asked_is_given_where_it_is_there(size: int, sources: list[tuple[int, int]]) -> None:
    weights = {str(i): float(weight) for i, (weight, _) in enumerate(sources)}
    there = {str(i): count for i, (_, count) in enumerate(sources)}
    out = shares(size, weights, there)
    usable = sum(there[name] for name in there if weights[name] > 0)
    assert min(size, usable) - len(sources) <= sum(out.values()) <= min(size, usable)
    assert all(0 <= out[name] <= there[name] for name in out)
    part = [name for name in out if 0 < out[name] < there[name] - 1]
    for a in part:  # those that have more to give stand as their weights do
        for b in part:
            assert abs(Fraction(out[a]) - out[b] * Fraction(int(weights[a]), int(weights[b]))) <= 2 + weights[a]

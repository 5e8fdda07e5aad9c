"""Closed form and property: bounds of t as tables print them, intervals that cover, words that follow from them."""

import numpy as np
import pytest

from pretrain.evaluate.compare import Measure, compare, margin_of, t_bound

MUTANTS = [
    ("src/pretrain/evaluate/compare.py", "(power + 1) / (power + 2)", "power / (power + 2)"),
    ("src/pretrain/evaluate/compare.py", "/ math.sqrt(len(values))", "/ len(values)"),
    ("src/pretrain/evaluate/compare.py", "RISK / len(others)", "RISK"),
    ("src/pretrain/evaluate/compare.py", "(difference < 0) == lower_is_better", "difference < 0"),
    ("src/pretrain/evaluate/compare.py", "value - base for", "base - value for"),
]


@pytest.mark.parametrize(
    ("risk", "freedom", "bound"),
    [(0.05, 1, 12.706), (0.05, 2, 4.303), (0.05, 3, 3.182), (0.01, 5, 4.032), (0.05, 10, 2.228), (0.02, 30, 2.457)],
)
def test_bounds_are_those_of_the_tables(risk: float, freedom: int, bound: float) -> None:
    assert t_bound(risk, freedom) == pytest.approx(bound, abs=5e-4)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.Generator(np.random.Philox(1)).normal(2, 3, (4000, 4))
    covered = [abs(row.mean() - 2) <= margin_of(row.tolist(), 0.05) for row in draws]  # type: ignore[operator]
    assert abs(np.mean(covered) - 0.95) < 0.012


def test_words_follow_from_paired_differences() -> None:
    """Seeds differ far more than cuts do: only the difference within a seed tells them apart."""
    base = [1.0, 2.0, 3.0]
    values = {"a": base, "b": [0.9, 1.91, 2.89], "same": base, "noise": [1.3, 1.6, 3.2], "c": [1.2, 2.21, 3.19]}
    lines = {line.cut: line for line in compare(Measure("bits", "bits", True, values))}
    assert lines["b"].difference == pytest.approx(-0.1)
    margin = (
        7.649 * 0.01 / np.sqrt(3)
    )  # four comparisons share 5 %: 1.25 % of t with 2 degrees, 0.9 % above that of 1 %
    assert t_bound(0.05 / 4, 2) == pytest.approx(8.86, abs=0.01)
    assert lines["b"].margin == pytest.approx(margin * 8.860 / 7.649, rel=1e-3)
    assert lines["b"].verdict.startswith("better by 0.1000 ± 0.05")
    assert lines["c"].verdict.startswith("worse by 0.2000")
    assert lines["same"].verdict == "no difference seen (+0.0000 ± 0.0000)"
    assert lines["noise"].verdict.startswith("no difference seen (+0.0333 ±")
    up = {line.cut: line for line in compare(Measure("share", "share", False, values))}
    assert up["b"].verdict.startswith("worse") and up["c"].verdict.startswith("better")
    (_, single) = compare(Measure("bits", "bits", True, {"a": [1.0], "b": [0.5]}))
    assert single.verdict == "-0.5000, one seed: no verdict" and single.band is None

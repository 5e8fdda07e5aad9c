"""Which of several cuts of data is better, and whether the seeds can tell: paired differences with their intervals.

Members of one seed share initial weights, held-out documents and all that is drawn, so their difference is taken seed
by seed (Student 1908); several cuts against the first share the risk of 5 % (Bonferroni).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RISK = 0.05  # that any of the intervals of a measure misses the truth


@dataclass(frozen=True)
class Measure:
    """A score of every cut, a value a seed; the first cut is what the others are held against."""

    name: str
    unit: str
    lower_is_better: bool
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Facts:
    """What a cut is made of, means over the seeds: documents and tokens to train on, and how often they are seen."""

    cut: str
    documents: float
    tokens: float
    epochs: float


@dataclass(frozen=True)
class Ablation:
    """All that an ablation found; `held_out` says in words what was scored."""

    name: str
    seeds: tuple[int, ...]
    budget: int  # tokens that each member trained on
    held_out: str
    facts: tuple[Facts, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Line:
    """A cut's mean with its noise band, and its mean difference to the first cut with the interval's half width."""

    cut: str
    mean: float
    band: float | None
    difference: float | None
    margin: float | None
    verdict: str


def compare(measure: Measure) -> list[Line]:
    """A line a cut, the first first. A difference is a verdict where its interval leaves zero out."""
    first, *others = measure.values
    lines = []
    for cut, values in measure.values.items():
        band = margin_of(values, RISK)
        if cut == first:
            lines.append(Line(cut, statistics.fmean(values), band, None, None, "the others are held against it"))
            continue
        pairs = [value - base for value, base in zip(values, measure.values[first], strict=True)]
        difference, margin = statistics.fmean(pairs), margin_of(pairs, RISK / len(others))
        words = verdict(difference, margin, measure.lower_is_better)
        lines.append(Line(cut, statistics.fmean(values), band, difference, margin, words))
    return lines


def verdict(difference: float, margin: float | None, lower_is_better: bool) -> str:
    """A difference in words: better, worse, or not told apart by these seeds."""
    if margin is None:
        return f"{difference:+.4f}, one seed: no verdict"
    if abs(difference) <= margin:
        return f"no difference seen ({difference:+.4f} ± {margin:.4f})"
    word = "better" if (difference < 0) == lower_is_better else "worse"
    return f"{word} by {abs(difference):.4f} ± {margin:.4f}"


def margin_of(values: Sequence[float], risk: float) -> float | None:
    """Half the width of the mean's confidence interval that misses with a probability of `risk`; None for one value."""
    if len(values) < 2:
        return None
    return t_bound(risk, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def t_bound(risk: float, freedom: int) -> float:
    """The bound that |t| exceeds with a probability of `risk`, by bisection."""
    low, high = 0.0, 1.0
    while within(high, freedom) < 1 - risk:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < 1 - risk else (low, middle)
    return high


def within(bound: float, freedom: int) -> float:
    """The probability of |t| ≤ `bound` (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(bound / math.sqrt(freedom))
    power, total = freedom % 2, 0.0
    term = math.cos(angle) ** power
    while power <= freedom - 2:
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
        power += 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if freedom % 2 else math.sin(angle) * total

"""What a language identifier takes for what: one accuracy hides that it never answers some languages."""

from collections import Counter
from collections.abc import Iterable


def confusion(pairs: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Counts of (truth, said)."""
    return Counter(pairs)


def table(counts: Counter[tuple[str, str]], worst: int = 20) -> str:
    """By language: how many, recall, precision, and what it is taken for; the worst recalls first."""
    truths = Counter({truth: 0 for truth, _ in counts})
    answers: Counter[str] = Counter()
    for (truth, said), times in counts.items():
        truths[truth] += times
        answers[said] += times
    right = sum(times for (truth, said), times in counts.items() if truth == said)
    lines = [f"{right / max(sum(counts.values()), 1):.3f} of {sum(counts.values()):,} are right", ""]
    lines.append(f"{'language':>8} {'texts':>6} {'recall':>7} {'precision':>9}  taken for")
    recall = {truth: counts[truth, truth] / times for truth, times in truths.items()}
    for truth in sorted(truths, key=lambda one: (recall[one], one))[:worst]:
        others = Counter({said: times for (one, said), times in counts.items() if one == truth and said != truth})
        precision = counts[truth, truth] / answers[truth] if answers[truth] else 0.0
        named = ", ".join(f"{said} {times}" for said, times in others.most_common(4))
        lines.append(f"{truth:>8} {truths[truth]:>6} {recall[truth]:>7.3f} {precision:>9.3f}  {named}")
    return "\n".join(lines)

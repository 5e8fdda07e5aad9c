"""Mixtures that change along a run, and sources that run dry: laid out as segments of the history before it begins.

Where a source was read as often as it may be, a segment begins without it: the others' shares grow in proportion.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

from pretrain.base.errors import UserError
from pretrain.order.order import BLOCK, History, Order
from pretrain.recipe.train import Phase

STAIRS = 32  # steps of a linear change

Change = tuple[int, dict[str, float]]  # from a position on, the weights of the sources


def source_of(name: str) -> str:
    """The source that a stratum belongs to: "web/1" holds the documents that came to "web" in mid-run."""
    return name.partition("/")[0]


def by_size(weights: Mapping[str, float], rows: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Weights times sizes to the power 1 / temperature (Conneau et al. 2020, arXiv 1911.02116, 3.1)."""
    sizes = dict.fromkeys(weights, 0)
    for name, count in rows.items():
        sizes[source_of(name)] = sizes.get(source_of(name), 0) + count
    return {name: weight * sizes[name] ** (1 / temperature) for name, weight in weights.items()}


def changes(
    weights: Mapping[str, float],
    phases: Sequence[Phase],
    at: Callable[[float], int],
    scaled: Callable[[Mapping[str, float]], dict[str, float]] = dict,
) -> list[Change]:
    """All weights along the run, where `at` says which position a share of the run is, and `scaled` what they count.

    A phase keeps the weights that it does not say. Shares that change linearly go up a staircase.
    """
    out = [(at(0.0), scaled(weights))]
    said = dict(weights)
    for phase in phases:
        said |= phase.weights
        before, after = out[-1][1], scaled(said)
        start, stop = at(phase.start), at(phase.start + phase.over)
        out += [*_staircase(before, after, start, stop), (stop, after)]
    return out


def _staircase(before: Mapping[str, float], after: Mapping[str, float], start: int, stop: int) -> list[Change]:
    """From some shares to others; the weights of a stair are its sources' rows, so that remainders are carried on."""
    bounds = [start + (stop - start) * i // STAIRS for i in range(STAIRS + 1)]
    if stop - start >= STAIRS * BLOCK:  # a block that is cut in two holds its shares only roughly
        bounds = [start + (bound - start) // BLOCK * BLOCK for bound in bounds[:-1]] + [stop]
    names, out = list(after), list[Change]()
    one, other = (_shares([weights.get(name, 0.0) for name in names]) for weights in (before, after))
    exact, given = [0.0] * len(names), [0] * len(names)
    for i, (low, high) in enumerate(pairwise(bounds)):
        part = (i + 0.5) / STAIRS
        exact = [e + (high - low) * (a + (b - a) * part) for e, a, b in zip(exact, one, other, strict=True)]
        new = [max(count, int(e)) for count, e in zip(given, exact, strict=True)]
        late = sorted(range(len(names)), key=lambda k: new[k] - exact[k])
        for k in late[: max(high - start - sum(new), 0)]:
            new[k] += 1
        if high > low:
            stair = {name: float(b - a) for name, a, b in zip(names, given, new, strict=True)}
            out.append((low, stair))
        given = new
    return out


def _shares(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def from_position(every: Sequence[Change], position: int) -> list[Change]:
    """The weights that hold at a position, and all that follow; of several at one position the last."""
    there: dict[int, dict[str, float]] = {}
    for start, weights in every:
        if start > position:
            there[start] = weights
        else:
            there = {position: weights}
    return sorted(there.items(), key=lambda change: change[0])


def lay_out(
    order: Order, every: Sequence[Change], end: int, most: Mapping[str, int], recipe: str, gone: Collection[str] = ()
) -> History:
    """The history with all changes up to `end`; `most` holds the rows that a source of the order may give in all.

    Strata that are `gone` give no more. Raises UserError where nothing is left to draw.
    """
    dry = set(gone)
    for (start, weights), (stop, _) in pairwise([*every, (end, {})]):
        position = start
        while position < min(stop, end):
            given = order.consumed(position)
            dry |= {name for name, rows in most.items() if given[name] >= rows}
            left = spread(weights, order.rows, dry)
            if sum(left.values()) <= 0:
                expected = "fewer steps, more text, or a larger most_epochs"
                raise UserError(f"every source has run dry at row {position:,} of {end:,}", expected=expected)
            order = Order(order.seed, order.rows, order.changed(position, left, recipe))
            wet = {name: rows for name, rows in most.items() if name not in dry}
            position = _until_dry(order, position, min(stop, end), wet)
    return order.history


def spread(weights: Mapping[str, float], rows: Mapping[str, int], dry: Collection[str]) -> dict[str, float]:
    """Weights of sources as weights of their strata, by size; of what has run dry they are zero."""
    totals = dict.fromkeys(weights, 0)
    for name, count in rows.items():
        if source_of(name) in weights and name not in dry:
            totals[source_of(name)] += count
    drawn = [name for name in rows if source_of(name) in weights]
    return {
        name: 0.0 if name in dry else weights[source_of(name)] * (rows[name] / totals[source_of(name)])
        for name in drawn
    }


def _until_dry(order: Order, low: int, high: int, most: Mapping[str, int]) -> int:
    """The last position up to `high` before which no source gave more than it may."""

    def over(position: int) -> bool:
        given = order.consumed(position)
        return any(given[name] > rows for name, rows in most.items())

    if not most or not over(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if over(middle) else (middle, high)
    return low


def epochs(order: Order, bounds: Sequence[int]) -> dict[str, list[float]]:
    """How often each source is read between consecutive positions."""
    sizes: dict[str, int] = {}
    for name, rows in order.rows.items():
        sizes[source_of(name)] = sizes.get(source_of(name), 0) + rows
    given = [order.consumed(position) for position in bounds]
    out = {source: [0.0] * (len(bounds) - 1) for source in sizes}
    for name in order.sources:
        for i, (before, after) in enumerate(pairwise(given)):
            out[source_of(name)][i] += (after[name] - before[name]) / sizes[source_of(name)]
    return out

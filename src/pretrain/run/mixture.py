"""What a run draws until it ends: the recipe's mixture laid out as a history, and how often each source is read."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

from pretrain.base.errors import UserError, nearest
from pretrain.base.files import digest_of
from pretrain.events.kinds import Mixture
from pretrain.order.order import WHOLE, History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.order.phases import Change, by_size, changes, epochs, from_position, lay_out, source_of, spread
from pretrain.recipe.recipe import Recipe, tree
from pretrain.recipe.train import Train


def most_epochs(recipe: Recipe) -> dict[str, float]:
    """How often sources may be read, where the recipe says so."""
    return {source.name: source.most_epochs for source in recipe.corpus.sources if source.most_epochs is not None}


def filled(rows: Mapping[str, Rows]) -> dict[str, float]:
    """The share of a source's places that hold tokens: packed rows hold some padding."""
    places, tokens = defaultdict[str, float](float), defaultdict[str, float](float)
    for name, one in rows.items():
        places[source_of(name)] += len(one)
        tokens[source_of(name)] += len(one) * (1 - one.padding)
    return {source: tokens[source] / places[source] for source in places}


def mixture(
    section: Train,
    weights: Mapping[str, float],
    fill: Mapping[str, float],
    rows: Mapping[str, int],
    at: Callable[[float], int],
) -> list[Change]:
    """The sources' weights along the run, where `at` is the position of a share of it.

    Weights are shares of tokens; what comes out counts rows, by how far they are filled. Raises UserError.
    """
    for phase in section.phases:
        if unknown := sorted(phase.weights.keys() - weights.keys()):
            what = f"train.phases: no such source as {unknown[0]!r}"
            raise UserError(what, expected=f"one of {', '.join(sorted(weights))}", near=nearest(unknown[0], weights))
    temperature = section.mixture_temperature

    def scaled(said: Mapping[str, float]) -> dict[str, float]:
        sized = said if temperature is None else by_size(said, rows, temperature)
        return {name: weight / fill.get(name, 1.0) for name, weight in sized.items()}

    return changes(weights, section.phases, at, scaled)


def first_history(
    section: Train, weights: Mapping[str, float], fill: Mapping[str, float], rows: Mapping[str, int]
) -> History:
    """What a run begins with, before its length is known."""
    _, there = from_position(mixture(section, weights, fill, rows, lambda share: round(share * WHOLE)), 0)[0]
    return History((Segment(0, spread(there, rows, ()), {}),))


def outlook(
    recipe: Recipe,
    weights: Mapping[str, float],
    fill: Mapping[str, float],
    order: Order,
    step: int,
    position: int,
    total: int,
    gone: Collection[str] = (),
) -> tuple[History, Mixture]:
    """The history until step `total` of a run that stands at `step`, and how often each source will have been read.

    Strata that are `gone` were learned from, and are not any more.
    A history that holds what the recipe asks for is left as it is, so that a resumed run goes on as it was laid out.
    Raises UserError where every source would run dry.
    """
    section, caps = recipe.train, most_epochs(recipe)
    rows = section.batch // (recipe.tokens.row or section.sequence)

    def at(share: float) -> int:
        return position + (round(share * total) - step) * rows

    end = at(1.0)
    most = {name: int(caps[source_of(name)] * size) for name, size in order.rows.items() if source_of(name) in caps}
    drawn = {name: count for name, count in order.rows.items() if name not in gone}
    every = from_position(mixture(section, weights, fill, drawn, at), position)
    phases = [tree(phase) for phase in section.phases]
    asked = digest_of([weights, fill, phases, section.mixture_temperature, caps, drawn, rows, total])
    history = order.history
    if history.segments[-1].recipe != asked:
        new = lay_out(order, every, end, most, asked, gone)
        history = history if _from(history, position) == _from(new, position) else new
    bounds = sorted({0, end, *(start for phase in section.phases if position < (start := at(phase.start)) < end)})

    def step_at(place: int) -> int:
        return step + (place - position) // rows + 1 if place else 1

    dry: dict[str, int] = {}
    for segment in history.segments:
        for name, count in most.items():
            if name not in gone and segment.consumed.get(name, 0) >= count:
                dry.setdefault(name, step_at(max(segment.position, position)))
    read = epochs(Order(order.seed, order.rows, history), bounds)
    return history, Mixture([step_at(bound) for bound in bounds[:-1]], read, dry)


def _from(history: History, position: int) -> list[tuple[int, Mapping[str, float]]]:
    """The weights from a position on."""
    every = [(segment.position, dict(segment.weights)) for segment in history.segments]
    return list(from_position(every, position))

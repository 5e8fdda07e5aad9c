"""Prints a recipe with the origin of every value, and what its mixture comes to, after checking all; does no work."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.cli.main import positive

if TYPE_CHECKING:
    from pretrain.recipe.recipe import Recipe

ORIGIN_COLUMN = 56
LEAF = "default of the leaf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain check`."""
    parser.add_argument("recipe", help="a file, a run directory, or the name of a recipe that ships")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="such as train.steps=200")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--ranks", type=positive, metavar="N", help="that will train: as few as [parallel] needs, if not said"
    )


def run(arguments: argparse.Namespace) -> int:
    """Binds every leaf, shows also the options that the recipe does not say, and then what stands in its way."""
    from pretrain.base.errors import UserError
    from pretrain.parallel.layout import fewest
    from pretrain.recipe.bind import bind_all
    from pretrain.recipe.read import load
    from pretrain.run.find import inputs
    from pretrain.run.layout import layout_of

    recipe = load(arguments.recipe, arguments.overrides)
    if recipe.model.from_ is not None:
        from pretrain.run.published import completed

        recipe = completed(recipe)
    defaults, wrong, mixture, words, ranked = bind_all(recipe), None, None, "", list[str]()
    try:
        inputs(recipe)
        ranks = arguments.ranks or fewest(recipe.parallel)
        ranked = [f"{ranks} ranks ({layout_of(recipe, ranks)})"] if ranks > 1 else []
        mixture, words = outlook(recipe, ranks)
    except UserError as error:
        wrong = error
    from pretrain.run.precision import notice

    precision = notice(recipe).text
    if arguments.json:
        values = {key: {"value": value, "origin": origin} for key, value, origin in rows(recipe, defaults)}
        print(json.dumps({"digest": recipe.digest, "values": values, "mixture": mixture, "precision": precision}))
    else:
        said = ["", *(f"# {line}" for line in [precision, *ranked, *words.splitlines()])]
        print("\n".join([*lines(recipe, defaults), *said]))
    if wrong is not None:
        raise wrong
    return 0


def outlook(recipe: "Recipe", ranks: int) -> tuple[dict[str, Any] | None, str]:
    """How often each source will be read, as a table and in words, as far as it is known: where its tokens are made."""
    from pretrain.events.kinds import Event, Mixture, Stage
    from pretrain.run.stages import execute
    from pretrain.watch.console import line

    said = list[Event]()
    if any(Path("store").glob("tokens-*")):
        execute(recipe, dry=True, ranks=ranks, subscribers=[said.append])
    for event in said:
        if isinstance(event, Mixture):
            return {"starts": event.starts, "epochs": event.epochs, "dry": event.dry}, line(event)
    reached = {event.name: event.state for event in said if isinstance(event, Stage)}
    if "train" not in reached:
        return None, "how often each source is read is known once its tokens are made (pretrain run … --to tokens)"
    if reached["train"] == "reused":
        return None, "the run is trained to its end"
    return None, "how often each source is read is known when train has measured its steps"


def lines(recipe: "Recipe", defaults: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The recipe as TOML that reads back the same, each value with its origin in a comment."""
    before = None
    for key, value, origin in rows(recipe, defaults):
        table, _, name = key.rpartition(".")
        if table != before:
            yield from ([] if before is None else [""])
            array, _, number = table.rpartition(".")
            inside = ".".join(part for part in table.split(".") if not part.isdigit())
            yield f"[[{array}]]" if number.isdigit() else f"[{inside}]"
            before = table
        if value is None:
            yield f"# {name} is not said"
        else:
            yield f"{f'{name} = {json.dumps(value, ensure_ascii=False)}':<{ORIGIN_COLUMN}} # {origin}"


def rows(recipe: "Recipe", defaults: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any, str]]:
    """(dotted key, value, origin) of everything, tables after the plain values of the table that holds them."""
    from pretrain.recipe.recipe import tree

    def walk(table: dict[str, Any], path: str) -> Iterator[tuple[str, Any, str]]:
        inner = list[tuple[str, dict[str, Any]]]()
        for name, value in table.items():
            key = f"{path}.{name}" if path else name
            if isinstance(value, dict):
                inner.append((key, value))
            elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                inner += [(f"{key}.{i}", one) for i, one in enumerate(value)]
            else:
                yield key, value, str(recipe.origin(key))
        yield from ((f"{path}.{name}", value, LEAF) for name, value in defaults.get(path, {}).items())
        for key, one in inner:
            yield from walk(one, key)

    yield from walk(tree(recipe), "")

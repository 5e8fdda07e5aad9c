"""Prints a recipe with the origin of every value, after checking all of it; does no work."""

import argparse
import dataclasses
import re


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain check`."""
    parser.add_argument("recipe", help="a file, a run directory, or the name of a recipe that ships")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as train.steps=200")


def run(arguments: argparse.Namespace) -> int:
    """Binds every leaf, so that their options are checked too."""
    from pretrain.base.errors import UserError
    from pretrain.recipe.read import load
    from pretrain.recipe.recipe import leaves
    from pretrain.recipe.schema import RecipeError

    recipe, problems = load(arguments.recipe, arguments.overrides), list[UserError]()
    for leaf in leaves(recipe):
        needs = {f.name for f in dataclasses.fields(_class(leaf)) if f.default is dataclasses.MISSING}
        try:
            leaf.bind(
                **({"vocab_size": recipe.tokenizer.vocab_size} if "vocab_size" in needs - leaf.options.keys() else {})
            )
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    table, counts = "", dict[str, int]()
    for line in recipe.to_toml().strip().splitlines():
        if header := re.fullmatch(r"(\[+)(.+?)\]+", line):
            table = header[2]
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}.{counts[table]}"
            print(line)
        elif line:
            key = f"{table}.{line.partition(' = ')[0]}"
            print(f"{line:<56} # {recipe.origin(key)}")
        else:
            print()
    return 0


def _class(leaf: object) -> type:
    from pretrain.base.extension import leaf as find
    from pretrain.recipe.schema import Leaf

    assert isinstance(leaf, Leaf)
    return find(leaf.kind, leaf.use)

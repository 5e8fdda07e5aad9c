"""Reads a recipe: TOML, what it extends and the command line, into a checked Recipe. Imports no leaf and no torch."""

import copy
from collections.abc import Sequence

from pretrain.recipe.layers import Layers, put_overrides, read_layers
from pretrain.recipe.recipe import Recipe, check
from pretrain.recipe.schema import Builder, Problems


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at a path, in a run directory, or shipped under a name; raises RecipeError with all its problems."""
    return build(read_layers(str(name), overrides))


def override(recipe: Recipe, *overrides: str) -> Recipe:
    """The same recipe with some `key=value` laid over it."""
    layers = copy.deepcopy(recipe.layers)
    put_overrides(layers, overrides)
    return build(layers)


def build(layers: Layers) -> Recipe:
    """A Recipe of a merged tree."""
    problems = Problems()
    recipe = Builder(layers, problems, words=True).section(Recipe, layers.tree, "")
    problems.stop()
    object.__setattr__(recipe, "layers", layers)
    check(recipe, problems)
    problems.stop()
    return recipe

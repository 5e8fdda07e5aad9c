"""`model.from`: the architecture and the tokenizer of a released folder, completed into the recipe that names it."""

import copy
import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.model.config import CONFIG, read_config
from pretrain.model.extend import unlike
from pretrain.recipe.layers import Origin
from pretrain.recipe.read import build
from pretrain.recipe.recipe import Recipe


def completed(recipe: Recipe) -> Recipe:
    """The recipe with what `model.from` leaves no choice in: every key of [model], and its tokenizer if none is named.

    What the recipe says itself must be the folder's, but for what can be extended. Raises UserError.
    """
    if recipe.model.from_ is None:
        return recipe
    folder = Path(recipe.model.from_)
    family, config = read_config(folder)
    name, layers = family.__name__.rpartition(".")[2], copy.deepcopy(recipe.layers)
    leaf, origin = recipe.model.family, Origin(str(folder / CONFIG))
    if "model.use" in layers.origins and find("model.families", leaf.use) is not family:
        where = str(layers.origin("model.use"))
        raise UserError(f"model.use = {leaf.use!r}", where=where, expected=f"{name!r}, which model.from holds")
    model = layers.tree["model"]
    assert isinstance(model, dict), "it says from"
    for key, value in {"use": name, **_plain(config)}.items():
        if key not in model:
            model[key] = value
            layers.origins[f"model.{key}"] = origin
    tokenizer = layers.tree.setdefault("tokenizer", {})
    if recipe.tokens.from_ is None and isinstance(tokenizer, dict) and "from" not in tokenizer:
        tokenizer["from"] = str(folder)
        layers.origins["tokenizer.from"] = Origin(str(folder))
    made = build(layers)
    _demand_fit(made, family, config)
    return made


def _plain(config: Any) -> dict[str, object]:
    """A Config as a recipe says it: what is None is not said."""

    def said(value: object) -> object:
        if isinstance(value, dict):
            return {name: said(inner) for name, inner in value.items() if inner is not None}
        return [said(one) for one in value] if isinstance(value, tuple | list) else value

    table = said(dataclasses.asdict(config))
    assert isinstance(table, dict)
    return table


def _demand_fit(recipe: Recipe, family: ModuleType, theirs: Any) -> None:
    """Raises UserError where [model] says an architecture that the folder's weights cannot become."""
    try:
        wrong = unlike(family, theirs, recipe.model.family.bind())
        what = f"has {'; '.join(wrong)}" if wrong else ""
    except ValueError as error:
        what = str(error)
    if what:
        said = [f"model.{name}" for name in recipe.model.family.options if what.startswith(f"has {name} ")]
        where = str(recipe.origin(said[0] if said else "model.from"))
        raise UserError(f"model.from {what}", where=where, expected="the same, or these keys left out")

"""All leaves of a recipe made of their options, so that every mistake in them is known before any work."""

import dataclasses
from typing import Any

from pretrain.base.errors import UserError, nearest
from pretrain.base.extension import find as module
from pretrain.base.extension import leaf as find
from pretrain.recipe.recipe import Recipe, leaves
from pretrain.recipe.schema import Leaf, Problems

LENGTHS = ("max_position_embeddings", "n_positions")  # what config.json may call the longest sequence


def bind_all(recipe: Recipe, *, training: bool = True) -> dict[str, dict[str, Any]]:
    """By table, the options of leaves that stand at their defaults. Raises RecipeError with all mistakes.

    Without `training`, a recipe need not say a model: it is there to make a corpus, or tokens.
    """
    defaults, problems = dict[str, dict[str, Any]](), Problems()
    for leaf in leaves(recipe):
        if leaf is recipe.model.family and not leaf.options and not training:
            continue
        try:
            needs = {f.name for f in options(leaf) if f.default is dataclasses.MISSING}
            filled = {"vocab_size": recipe.tokenizer.ids} if "vocab_size" in needs - leaf.options.keys() else {}
            bound = leaf.bind(**filled)
        except UserError as error:
            problems.found += getattr(error, "problems", [error])
            continue
        except ModuleNotFoundError as error:
            if error.name != "torch" or training:
                raise
            continue  # a machine that makes corpora only: another one trains
        unsaid = [f.name for f in options(leaf) if f.name not in {*leaf.options, *filled}]
        defaults.setdefault(leaf.key, {}).update((name, getattr(bound, name)) for name in unsaid)
        if leaf is recipe.model.family:
            _check_length(recipe, bound, problems)
            _check_small(recipe, bound, problems)
            _check_sides(recipe, problems)
    problems.stop()
    return defaults


def options(leaf: Leaf) -> list[dataclasses.Field[Any]]:
    """What can be said of a leaf."""
    return [f for f in dataclasses.fields(find(leaf.kind, leaf.use)) if f.init]


def _check_length(recipe: Recipe, config: object, problems: Problems) -> None:
    for name in LENGTHS:
        stated = getattr(config, name, None)
        longest = getattr(config, "longest", stated)  # where not every place is a token's
        if longest is not None and stated is not None and longest < recipe.train.sequence:
            said = f"model.{name}" if name in recipe.model.family.options else "train.sequence"
            problems.add(
                f"train.sequence = {recipe.train.sequence} and model.{name} = {stated} contradict each other",
                where=recipe.layers.origin(said),
                expected=f"sequences of at most {longest}, or a longer model.{name}",
            )


def _check_small(recipe: Recipe, config: Any, problems: Problems) -> None:
    """The model that train.tuned_on describes: its sizes are of the family, and fit each other."""
    known = [f.name for f in dataclasses.fields(config) if f.type in (int, "int", int | None)]
    said = recipe.train.tuned_on or {}
    for name in said.keys() - set(known):
        path = f"train.tuned_on.{name}"
        near = nearest(name, known)
        problems.add(f"{path}: no such size", where=recipe.layers.origin(path), near=near and f"train.tuned_on.{near}")
    if said.keys() <= set(known):
        try:
            dataclasses.replace(config, **said)
        except ValueError as error:
            problems.add(f"train.tuned_on: {error}", where=recipe.layers.origin("train.tuned_on"))


def _check_sides(recipe: Recipe, problems: Problems) -> None:
    """An encoder would find the next token before its eyes."""
    family, objective = recipe.model.family, recipe.train.objective
    causal = objective.kind == "objective.kinds" and getattr(find(objective.kind, objective.use), "causal", True)
    if causal and not getattr(module(family.kind, family.use), "CAUSAL", True):
        problems.add(
            f"train.objective {objective.use} predicts what model.use {family.use} sees: an encoder's tokens see all",
            where=recipe.layers.origin("train.objective"),
            expected="an objective that hides tokens, such as masked",
        )

"""Closed form: docs/recipe.md is what the sections say now, and every key that exists is in it."""

import dataclasses
from pathlib import Path

from pretrain.recipe.recipe import Recipe, tree
from pretrain.recipe.reference import reference
from pretrain.recipe.train import Train

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "python -c 'from pretrain.recipe.reference import …' writes it anew"


def test_every_key_is_described() -> None:
    page = PAGE.read_text()
    assert all(f"| `{name}` |" in page for name in tree(Train()))
    assert all(f"## [{f.name}]" in page for f in dataclasses.fields(Recipe) if f.init)

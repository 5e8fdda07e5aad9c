"""Writes docs/recipe.md from the sections themselves."""

import dataclasses
import typing

from pretrain.base.extension import leaf, names
from pretrain.recipe.recipe import Recipe
from pretrain.recipe.schema import Leaf, shape_of

KINDS = {
    "corpus.read": "readers, `read = …` in [[corpus.sources]]",
    "corpus.extract": "extractors, `extract = …` in [[corpus.sources]]",
    "corpus.filters": "filters, `use = …` in [[corpus.steps]]",
    "corpus.edits": "edits, `use = …` in [[corpus.steps]]",
    "corpus.dedup": "de-duplication, `use = …` in [[corpus.steps]]",
    "corpus.engine": "engines, `engine = …` in [corpus]",
    "model.families": "families, `use = …` in [model]",
    "objective.kinds": "objectives, `train.objective`",
    "optimizer.kinds": "optimizers, `train.optimizer`",
    "evaluate.tasks": "tasks, `use = …` in [[evaluate.tasks]]",
}


def reference() -> str:
    """The page: every key with its type, default and meaning, then every leaf with its options."""
    lines = [
        *(
            "# Recipe reference",
            "",
            "Made by `recipe/reference.py`; a test holds this page equal to what it writes.",
            "",
        ),
        'A recipe is TOML. `extends = "other.toml"` lays it over another, a path or a shipped name; `key=value` on the',
        'command line lies over both. Quantities may be written with units: `"128Ki tokens"`, `"2 h"`, `"80GiB"`.',
    ]
    for name, hint in typing.get_type_hints(Recipe).items():
        if dataclasses.is_dataclass(hint) and name != "layers":
            lines += _section(hint, f"[{name}]")
    for kind, what in KINDS.items():
        lines += ["", f"## {what[0].upper()}{what[1:]}"]
        for name in names(kind):
            cls = leaf(kind, name)
            lines += ["", f"### `{name}`", "", " ".join((cls.__doc__ or "").split()), *_table(cls)]
    return "\n".join(lines) + "\n"


def _section(cls: typing.Any, title: str) -> list[str]:
    lines = ["", f"## {title}", "", (cls.__doc__ or "").partition(": ")[2].strip().capitalize(), *_table(cls)]
    for name, hint in typing.get_type_hints(cls).items():
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        if dataclasses.is_dataclass(inner) and inner is not Leaf:
            brackets = ("[[", "]]") if inner is not hint else ("[", "]")
            lines += _section(inner, f"{brackets[0]}{title.strip('[]')}.{name}{brackets[1]}")
    return lines


def _table(cls: typing.Any) -> list[str]:
    hints = typing.get_type_hints(cls)
    rows = []
    for f in dataclasses.fields(cls):
        name = f.metadata.get("by") if f.metadata.get("rest") else f.name.removesuffix("_")
        default = "" if f.default is dataclasses.MISSING else _default(f.default)
        rows.append(f"| `{name}` | {shape_of(hints[f.name])} | {default} | {f.metadata.get('doc', '')} |")
    return ["", "| key | is | default | says |", "|---|---|---|---|", *rows] if rows else []


def _default(value: object) -> str:
    if isinstance(value, Leaf):
        return f"`{value.use}`"
    return "" if value is None or dataclasses.is_dataclass(value) else f"`{value!r}`".replace("()", "[]")

"""From a tree of values to frozen dataclasses: keys, types and ranges are checked, all problems told at once."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pretrain.base.errors import UserError, nearest
from pretrain.base.extension import leaf, names
from pretrain.recipe.layers import Layers, Tree

PLACEHOLDERS = ("{stdlib}", "{packages}")  # folders of the Python that runs, resolved where files are listed


def key(
    doc: str,
    default: Any = dataclasses.MISSING,
    *,
    unit: Callable[[str], float] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    path: bool = False,
) -> Any:
    """A key of a section or a leaf: its line in the reference, default, unit, range, and whether it holds paths."""
    metadata = {"doc": doc, "unit": unit, "at_least": at_least, "at_most": at_most, "below": below, "path": path}
    return field(default=default, metadata=metadata)


def leaf_key(doc: str, *kinds: str, use: str | None = None, by: str = "use", rest: bool = False) -> Any:
    """A key that holds a leaf's table; with `rest`, its options stand in the section itself and `by` names it."""
    default = dataclasses.MISSING if use is None else Leaf(kinds, use)
    return field(default=default, metadata={"doc": doc, "kinds": kinds, "use": use, "by": by, "rest": rest})


def leaves_key(doc: str, *kinds: str) -> Any:
    """A key that holds an array of leaves' tables, none by default."""
    return field(default=(), metadata={"doc": doc, "kinds": kinds})


@dataclass(frozen=True)
class Leaf:
    """A leaf by name, with its options as said: checked when bound, so that reading a recipe imports no leaf."""

    kinds: tuple[str, ...]  # the folders it may live in: ("model.families",)
    use: str
    options: Mapping[str, object] = field(default_factory=dict)
    key: str = field(default="", compare=False)  # its table in the recipe: "train.optimizer"
    layers: Layers = field(default_factory=Layers, compare=False, repr=False)
    by: str = field(default="use", compare=False)  # the key of that table that names the leaf
    beside: tuple[str, ...] = field(default=(), compare=False)  # keys of the section that its options stand in

    @property
    def kind(self) -> str:
        """The folder that it lives in. Raises UserError with the nearest name where none holds it."""
        if "." in self.use:
            return self.kinds[0]
        known = {name: kind for kind in self.kinds for name in names(kind)}
        if self.use not in known:
            raise UserError(
                f"{self.key}: nothing called {self.use!r}",
                where=str(self.layers.origin(f"{self.key}.{self.by}")),
                expected=f"one of {', '.join(sorted(known))}",
                near=nearest(self.use, known),
            )
        return known[self.use]

    def bind(self, **more: object) -> Any:
        """The leaf's dataclass made of its options and `more` (what the run fills in). Raises UserError."""
        problems, beside = Problems(), (self.by, *self.beside)
        builder = Builder(self.layers, problems, sizes=self.kind == "model.families")
        made = builder.section(leaf(self.kind, self.use), {**more, **self.options}, self.key, beside)
        problems.stop()
        return made

    def paths(self) -> dict[str, object]:
        """The options that name files, `path=True` in their `key`, made absolute; of leaves of the corpus alone.

        Other rooms' leaves may need torch to be imported.
        """
        if not self.options or not self.kinds[0].startswith("corpus."):
            return {}
        builder = Builder(self.layers, Problems())
        mine = {f.name.removesuffix("_"): f for f in dataclasses.fields(leaf(self.kind, self.use))}
        return {
            name: builder.absolute(mine[name], value, f"{self.key}.{name}")
            for name, value in self.options.items()
            if name in mine and mine[name].metadata.get("path")
        }

    def said(self) -> dict[str, object]:
        """Its options as a recipe says them that may lie anywhere."""
        return {**self.options, **self.paths()}


class RecipeError(UserError):
    """All that is wrong with a recipe, a line each."""

    def __init__(self, problems: list[UserError]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass
class Problems:
    """Collects mistakes, so that a user sees all of them at once."""

    found: list[UserError] = field(default_factory=list)

    def add(self, what: str, *, where: object = "", expected: str = "", near: str = "") -> None:
        """Notes a mistake and goes on."""
        self.found.append(UserError(what, where=str(where), expected=expected, near=near))

    def stop(self) -> None:
        """Raises RecipeError if anything was found."""
        if self.found:
            raise RecipeError(self.found)


@dataclass
class Builder:
    """Makes dataclasses of a tree whose origins it knows."""

    layers: Layers
    problems: Problems
    words: bool = False  # a bare word of the command line may stand for a string, though TOML reads a number
    sizes: bool = False  # whole numbers are sizes, at least 1, and others at least 0, where a default is not less

    def section(self, cls: type, table: Mapping[str, object], path: str, beside: Sequence[str] = ()) -> Any:
        """An instance of `cls`; None where a problem stands in the way. Keys `beside` its own are others' to read."""
        hints, fields = typing.get_type_hints(cls), {f.name: f for f in dataclasses.fields(cls) if f.init}
        keys = {name.removesuffix("_"): f for name, f in fields.items()}
        rest = next((f for f in fields.values() if f.metadata.get("rest")), None)
        values: dict[str, object] = {}
        before = len(self.problems.found)
        if rest is not None:
            keys.pop(rest.name)
            table = self._take_rest(rest, dict(table), keys, values, path)
        for name, value in table.items():
            where = f"{path}.{name}" if path else name
            if name not in keys:
                self._unknown(path, name, [*keys, *beside])
                continue
            made = self._value(keys[name], hints[keys[name].name], value, where)
            if made is not _WRONG:
                values[keys[name].name] = made
        for name in (name for name in keys if name not in table):
            self._unsaid(keys[name], hints[keys[name].name], f"{path}.{name}" if path else name, values)
        if len(self.problems.found) > before:
            return None
        try:
            return cls(**values)
        except UserError as error:
            self.problems.add(f"{path}: {error}", where=self._where(path))
        except ValueError as error:  # a leaf's own check of its options
            self.problems.add(f"{path}: {error}", where=self._where(path))
        return None

    def _where(self, path: str) -> object:
        origin = self.layers.origin(path)
        return origin if origin.file else ""

    def _unknown(self, path: str, name: str, known: Sequence[str]) -> None:
        near = nearest(name, known)
        where = f"{path}.{name}" if path else name
        self.problems.add(
            f"{where}: no such key",
            where=self._where(where),
            expected="" if near else f"one of {', '.join(known)}" if known else "none",
            near=f"{path}.{near}" if near and path else near,
        )

    def _unsaid(self, f: Any, hint: Any, path: str, values: dict[str, object]) -> None:
        """A key that is not said: a section is then an empty one, a leaf knows where it could have been said."""
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint is not Leaf:
            values[f.name] = self.section(hint, {}, path)
        elif isinstance(f.default, Leaf):
            values[f.name] = dataclasses.replace(f.default, key=path, layers=self.layers)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            expected = _doc(f) or shape_of(hint)
            self.problems.add(f"{path} is not said", where=self._where(path), expected=expected)

    def _take_rest(self, rest: Any, table: Tree, keys: Mapping[str, object], values: Tree, path: str) -> Tree:
        """Moves the keys of a leaf whose options stand in its section into a Leaf."""
        by = rest.metadata["by"]
        options = {name: table.pop(name) for name in list(table) if name not in keys}
        use = options.pop(by, None if rest.default is dataclasses.MISSING else rest.default.use)
        if isinstance(use, str):
            values[rest.name] = Leaf(rest.metadata["kinds"], use, options, path, self.layers, by, tuple(keys))
        elif use is None:
            self._nameless(path, by, options, f"a name from {' or '.join(rest.metadata['kinds'])}")
        else:
            self.problems.add(f"{path}.{by} = {_shown(use)}", where=self._where(f"{path}.{by}"), expected="a name")
        return table

    def _nameless(self, path: str, by: str, options: Mapping[str, object], expected: str) -> None:
        """A leaf's table without the key that names it, or with that key misspelt."""
        if wrong := next((name for name in options if nearest(name, [by])), None):
            self._unknown(path, wrong, [by])
        else:
            self.problems.add(f"{path}.{by} is not said", where=self._where(path), expected=expected)

    def _value(self, f: Any, hint: Any, value: object, path: str) -> object:
        meta = f.metadata
        if meta.get("unit") and isinstance(value, str) and _takes_number(hint):
            try:
                value = meta["unit"](value)
            except UserError as error:
                self.problems.add(f"{path}: {error.what}", where=self._where(path), expected=error.expected)
                return _WRONG
        word = self.layers.origins[path].word if self.words and path in self.layers.origins else ""
        if word and str in {hint, *get_args(hint)} and not isinstance(value, (str, list, dict)):
            value = word
        made = self._convert(hint, value, path, meta)
        if made is _WRONG:
            return _WRONG
        if isinstance(made, (int, float)) and not isinstance(made, bool) and (bounds := self._bounds(f, made)):
            self.problems.add(f"{path} = {_shown(made)} is out of range", where=self._where(path), expected=bounds)
            return _WRONG
        return self.absolute(f, made, path) if meta.get("path") else made

    def _bounds(self, f: Any, made: float) -> str:
        """The range of a key, where a number lies outside."""
        low, high, below = (f.metadata.get(name) for name in ("at_least", "at_most", "below"))
        if low is None and self.sizes:
            low = int(type(made) is int)
            low = min(low, f.default) if type(f.default) in (int, float) else low
        if not math.isfinite(made):
            return "a finite number"
        if (low is None or made >= low) and (high is None or made <= high) and (below is None or made < below):
            return ""
        if None not in (low, high):
            return f"{low} to {high}"
        ends = {"at least": low, "at most": high, "below": below}
        return " and ".join(f"{word} {end}" for word, end in ends.items() if end is not None)

    def absolute(self, f: Any, value: object, path: str) -> object:
        """Paths are relative to the file that says them; the default of a key, such as "langid", may be a word."""
        folder = self.layers.origin(path).folder
        if isinstance(value, list | tuple):
            return tuple(self.absolute(f, one, path) for one in value)
        if not isinstance(value, str) or value == f.default or folder is None:
            return value
        if "://" in value or value.startswith(PLACEHOLDERS):
            return value
        return str(folder.resolve() / Path(value).expanduser())

    def _convert(self, hint: Any, value: object, path: str, meta: Mapping[str, Any]) -> object:
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Leaf:
            if isinstance(value, str):
                value = {"use": value}
            if isinstance(value, dict) and "use" not in value and meta.get("use"):
                value = {"use": meta["use"], **value}  # options for the leaf that stands there by default
            if isinstance(value, dict) and isinstance(value.get("use"), str):
                options = {name: inner for name, inner in value.items() if name != "use"}
                return Leaf(meta["kinds"], value["use"], options, path, self.layers)
            if isinstance(value, dict) and "use" not in value:
                self._nameless(path, "use", value, f"a name from {' or '.join(meta['kinds'])}")
                return _WRONG
        elif origin in (typing.Union, types.UnionType):
            members = [member for member in arguments if member is not type(None)]
            if len(members) == 1:
                return None if value is None else self._convert(members[0], value, path, meta)
            silent = dataclasses.replace(self, problems=Problems())
            for member in members:
                made = silent._convert(member, value, path, meta)
                if made is not _WRONG:
                    return made
        elif origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in arguments):
                return value
            near = nearest(str(value), map(str, arguments))
            self.problems.add(f"{path} = {_shown(value)}", where=self._where(path), expected=shape_of(hint), near=near)
            return _WRONG
        elif origin is tuple and isinstance(value, (list, tuple)):
            made_all = [self._convert(arguments[0], one, f"{path}.{i}", meta) for i, one in enumerate(value)]
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return _WRONG if _WRONG in made_all else tuple(made_all)
        elif origin is dict and isinstance(value, dict):
            table = {name: self._convert(arguments[1], one, f"{path}.{name}", meta) for name, one in value.items()}
            return _WRONG if _WRONG in table.values() else table
        elif dataclasses.is_dataclass(hint) and isinstance(value, dict) and isinstance(hint, type):
            made = self.section(hint, value, path)
            return _WRONG if made is None else made
        elif hint is float and type(value) in (int, float):
            return float(value)  # type: ignore[arg-type]
        elif isinstance(hint, type) and type(value) is hint:
            return value  # `type is`, since True is an int to isinstance
        expected = shape_of(hint)
        self.problems.add(f"{path} = {_shown(value)} is of the wrong type", where=self._where(path), expected=expected)
        return _WRONG


class _Wrong:
    """What a value that does not fit turns into."""


_WRONG = _Wrong()


def _shown(value: object) -> str:
    """A value in a user's words: as TOML writes it, or what it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return repr(value)
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, (list, tuple)) else str(value)


def _takes_number(hint: Any) -> bool:
    return bool({int, float} & {hint, *get_args(hint)})


def _doc(f: Any) -> str:
    return f.metadata.get("doc", "")


def shape_of(hint: Any) -> str:
    """A type in a user's words."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(shape_of(member) for member in get_args(hint) if member is not type(None))
    if get_origin(hint) is tuple:
        return f"a list, each {shape_of(get_args(hint)[0])}"
    words: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    words |= {Leaf: 'a table with "use"'}
    return words.get(hint, "a table")

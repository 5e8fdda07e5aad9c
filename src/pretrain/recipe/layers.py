"""TOML files, `extends` and the command line, merged into one tree in which every value knows its origin."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from pretrain.base.errors import UserError, nearest

Tree = dict[str, object]  # tables as dicts, arrays as lists, values as tomllib gives them
CHOICES = (("train.steps", "train.tokens", "train.seconds"),)  # of each, the nearest layer's one stands
HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
ASSIGN = re.compile(r"\s*((?:[\w-]+|\"[^\"]*\")(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"))*)\s*=")


@dataclass(frozen=True)
class Origin:
    """Where a value was said: a line of a file, the command line, or nowhere (a default)."""

    file: str = ""
    line: int = 0
    folder: Path | None = None  # what relative paths said there are relative to

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file or "default"


COMMAND_LINE = "command line"


@dataclass
class Layers:
    """The merged tree; `origins` by dotted path, array elements by number: `corpus.sources.0.name`."""

    tree: Tree = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def origin(self, path: str) -> Origin:
        """Where a value, or else the table around it, was said."""
        while path and path not in self.origins:
            path = path.rpartition(".")[0]
        return self.origins.get(path, Origin())

    def put(self, tree: Tree, origins: dict[str, Origin]) -> None:
        """Lays a nearer layer over this one: tables merge, values and arrays are replaced."""
        for choice in CHOICES:
            said = [path for path in choice if path in origins]
            if len(said) > 1:
                raise UserError(
                    f"{' and '.join(said)} contradict each other", where=str(origins[said[1]]), expected="one"
                )
            if said:
                self._drop(*(path for path in choice if path not in said))
        self._merge(self.tree, tree, "")
        self.origins.update(origins)

    def _merge(self, under: Tree, over: Tree, path: str) -> None:
        uses = under.get("use")
        if "use" in over and uses is not None and over["use"] != uses:
            self._drop(*(f"{path}{name}" for name in under))  # another leaf: the first one's options mean nothing to it
        for name, value in over.items():
            there = under.get(name)
            if isinstance(value, dict) and isinstance(there, dict):
                self._merge(there, value, f"{path}{name}.")
                continue
            self._drop(f"{path}{name}")
            under[name] = value

    def _drop(self, *paths: str) -> None:
        for path in paths:
            *tables, last = path.split(".")
            node: object = self.tree
            for name in tables:
                node = node.get(name) if isinstance(node, dict) else None
            if isinstance(node, dict):
                node.pop(last, None)
            for key in [key for key in self.origins if f"{key}.".startswith(f"{path}.")]:
                del self.origins[key]


def read_layers(name: str, overrides: Sequence[str]) -> Layers:
    """The tree of a recipe (a path, or the name of one that ships) under what it extends and over the command line."""
    layers = Layers()
    for path, shown, folder in reversed(_chain(name)):
        text = path.read_text("utf-8")
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = re.search(r"\(at line (\d+), column \d+\)$", str(error))
            where = f"{shown}:{at[1]}" if at else f"{shown}:{len(text.splitlines())}"
            raise UserError(re.sub(r" \(at .*\)$", "", str(error)), where=where, expected="TOML") from None
        tree.pop("extends", None)
        layers.put(tree, {key: Origin(shown, line, folder) for key, line in _lines(text) if key != "extends"})
    for override in overrides:
        put_override(layers, override)
    return layers


def put_override(layers: Layers, override: str) -> None:
    """Lays `a.b=value` over a tree; elements of an array go by number or by their `name`."""
    path, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", path):
        raise UserError(f"{override!r} is no override", where=COMMAND_LINE, expected="section.key=value")
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    origin = Origin(COMMAND_LINE, folder=Path.cwd())
    names, node = path.split("."), layers.tree
    for depth, name in enumerate(names[:-1]):
        inner = node.get(name)
        if isinstance(inner, list):
            number, element = _element(inner, names[depth + 1], ".".join(names[: depth + 1]))
            key = ".".join([*names[: depth + 1], str(number), *names[depth + 2 :]])
            if depth + 2 == len(names) - 1:
                element[names[-1]] = value
                layers.origins[key] = origin
                return
            raise UserError(f"{path} reaches too deep into an array", where=COMMAND_LINE)
        node = inner if isinstance(inner, dict) else {}
    tree: Tree = {names[-1]: value}
    for name in reversed(names[:-1]):
        tree = {name: tree}
    layers.put(tree, {path: origin})


def _element(array: list, name: str, path: str) -> tuple[int, Tree]:
    known = [str(element.get("name", element.get("use", i))) for i, element in enumerate(array)]
    if name in known:
        return known.index(name), array[known.index(name)]
    if name.isdigit() and int(name) < len(array):
        return int(name), array[int(name)]
    raise UserError(
        f"{path} has no element {name!r}", where=COMMAND_LINE, expected=", ".join(known), near=nearest(name, known)
    )


def shipped() -> dict[str, Path]:
    """Recipes that the package carries, by name."""
    with as_file(files("pretrain") / "recipes") as folder:
        return {str(p.relative_to(folder).with_suffix("")): p for p in sorted(folder.rglob("*.toml"))}


def _chain(name: str) -> list[tuple[Path, str, Path]]:
    """The recipe and what it extends, nearest first: (path, name in messages, folder of its relative paths)."""
    chain: list[tuple[Path, str, Path]] = []
    wanted, beside, where = name, Path.cwd(), ""
    while True:
        catalogue = shipped()
        path = beside / wanted
        if path.is_dir() and (path / "recipe.toml").is_file():
            path = path / "recipe.toml"  # a run directory holds its resolved recipe
        if not path.is_file():
            short = wanted.removesuffix(".toml")
            if short not in catalogue:
                expected = f"a path, or one that ships: {', '.join(catalogue)}"
                near = nearest(short, [*catalogue, *(p.name for p in beside.glob("*.toml"))])
                raise UserError(f"no recipe {wanted}", where=where, expected=expected, near=near)
            path = catalogue[short]
        ships = path in catalogue.values()
        shown = f"pretrain/recipes/{path.name}" if ships else _shown(path)
        if any(path.samefile(other) for other, _, _ in chain):
            raise UserError(f"{wanted} extends itself", where=where)
        chain.append((path, shown, Path.cwd() if ships else path.parent))
        match = re.search(r"^extends\s*=\s*[\"'](.+?)[\"']", path.read_text("utf-8"), re.M)
        if not match:
            return chain
        wanted, beside, where = match[1], path.parent, shown


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """(dotted path, line) of every table and value of a TOML file that parses."""
    lines, prefix, arrays = text.splitlines(), "", dict[str, int]()
    number = 0
    while number < len(lines):
        line = lines[number]
        if header := HEADER.fullmatch(line):
            names = [name.strip().strip('"') for name in header[2].split(".")]
            prefix = ""
            for depth, name in enumerate(names):
                prefix = f"{prefix}{name}."
                if header[1] == "[[" and depth == len(names) - 1:
                    arrays[prefix] = arrays.get(prefix, -1) + 1
                if prefix in arrays:
                    prefix = f"{prefix}{arrays[prefix]}."
            yield prefix[:-1], number + 1
        elif assign := ASSIGN.match(line):
            first = number
            while not _parses("\n".join(lines[first : number + 1])):
                number += 1  # a value of several lines
            key = ".".join(name.strip().strip('"') for name in assign[1].split("."))
            value = tomllib.loads("\n".join(lines[first : number + 1]))
            yield from _inside(value, prefix, first + 1) if isinstance(value, dict) else [(prefix + key, first + 1)]
        number += 1


def _inside(value: object, prefix: str, line: int) -> Iterator[tuple[str, int]]:
    """Every path inside a value, all said on one line; arrays of plain values are one value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if isinstance(value, dict) or isinstance(inner, dict):
            yield f"{prefix}{name}", line
            yield from _inside(inner, f"{prefix}{name}.", line)


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True

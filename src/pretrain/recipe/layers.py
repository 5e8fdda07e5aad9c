"""TOML files, `extends` and the command line, merged into one tree in which every value knows its origin."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    word: str = ""  # as it was typed on the command line, where it may be a string that looks like a number

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file or "default"


COMMAND_LINE = "command line"


@dataclass
class Layers:
    """The merged tree; `origins` by dotted path, array elements by number: `corpus.sources.0.name`."""

    tree: Tree = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    file: Origin = Origin()  # the recipe itself, whose extended ones lie below

    def origin(self, path: str) -> Origin:
        """Where a value, or else the first one inside it, or else the table around it, was said."""
        while path:
            inside = (key for key in self.origins if key.startswith(f"{path}."))
            found = path if path in self.origins else next(inside, None)
            if found is not None:
                return self.origins[found]
            path = path.rpartition(".")[0]
        return self.file

    def put(self, tree: Tree, origins: dict[str, Origin]) -> None:
        """Lays a nearer layer over this one: tables merge, values and arrays are replaced."""
        _one_of_each_choice(origins)
        for choice in CHOICES:
            if any(path in origins for path in choice):
                self._drop(*(path for path in choice if path not in origins))
        self._merge(self.tree, tree, "")
        self.origins.update(origins)

    def _merge(self, under: Tree, over: Tree, path: str) -> None:
        uses = under.get("use")
        if "use" in over and uses is not None and over["use"] != uses:
            self._drop(*(f"{path}{name}" for name in under))  # another leaf: the first one's options mean nothing to it
        if path == "model." and "from" in over:
            self._drop(*(f"{path}{name}" for name in under))  # the folder's architecture stands for what lies below
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


def _one_of_each_choice(origins: Mapping[str, Origin]) -> None:
    for choice in CHOICES:
        said = [path for path in choice if path in origins]
        if len(said) > 1:
            raise UserError(f"{' and '.join(said)} contradict each other", where=str(origins[said[1]]), expected="one")


def read_layers(name: str, overrides: Sequence[str]) -> Layers:
    """The tree of a recipe (a path, or the name of one that ships) under what it extends and over the command line."""
    layers = Layers()
    for file in reversed(_chain(name)):
        layers.file = Origin(file.shown, folder=file.folder)
        layers.put(file.tree, {key: Origin(file.shown, line, file.folder) for key, line in file.lines.items()})
    put_overrides(layers, overrides)
    return layers


def put_overrides(layers: Layers, overrides: Sequence[str]) -> None:
    """Lays `a.b=value` of one command line over a tree; elements of an array go by number or by their `name`."""
    said = dict[str, Origin]()
    for override in overrides:
        said |= _put_override(layers, override)
        _one_of_each_choice(said)


def _put_override(layers: Layers, override: str) -> dict[str, Origin]:
    path, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", path):
        raise UserError(f"{override!r} is no override", where=COMMAND_LINE, expected="section.key=value")
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    origin = Origin(COMMAND_LINE, folder=Path.cwd(), word=text)
    names, node = path.split("."), layers.tree
    for depth, name in enumerate(names[:-1]):
        inner = node.get(name)
        if isinstance(inner, list):
            number, element = _element(inner, names[depth + 1], ".".join(names[: depth + 1]))
            key = ".".join([*names[: depth + 1], str(number), *names[depth + 2 :]])
            if depth + 2 == len(names) - 1:
                element[names[-1]] = value
                layers.origins |= _origins(key, value, origin)
                return {}
            raise UserError(f"{path} reaches too deep into an array", where=COMMAND_LINE)
        node = inner if isinstance(inner, dict) else {}
    tree: Tree = {names[-1]: value}
    for name in reversed(names[:-1]):
        tree = {name: tree}
    origins = _origins(path, value, origin)
    layers.put(tree, origins)
    return origins


def _origins(path: str, value: object, origin: Origin) -> dict[str, Origin]:
    inside = dict.fromkeys((key for key, _ in _inside(value, f"{path}.", 0)), replace(origin, word=""))
    return {path: origin, **inside}


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


@dataclass(frozen=True)
class _File:
    """A recipe of a chain: its tree without `extends`, and the line of every path in it."""

    shown: str  # its name in messages
    folder: Path  # what its relative paths are relative to
    tree: Tree
    lines: dict[str, int]


def _chain(name: str) -> list[_File]:
    """The recipe and what it extends, nearest first."""
    chain, paths = list[_File](), list[Path]()
    wanted, beside, where = name, Path.cwd(), ""
    while True:
        path, shown = _find(wanted, beside, where)
        if any(path.samefile(other) for other in paths):
            raise UserError(f"{wanted} extends itself", where=where)
        tree, lines = _parse(path, shown)
        extends, line = tree.pop("extends", None), lines.pop("extends", 0)
        chain.append(_File(shown, Path.cwd() if path in shipped().values() else path.parent, tree, lines))
        paths.append(path)
        if extends is None:
            return chain
        where = f"{shown}:{line}"
        if not isinstance(extends, str) or not extends:
            raise UserError("extends is no name", where=where, expected="a path, or a recipe that ships, in quotes")
        wanted, beside = extends, path.parent


def _find(wanted: str, beside: Path, where: str) -> tuple[Path, str]:
    """The file of a recipe, and its name in messages. Raises UserError with the nearest name."""
    path, catalogue, short = beside / wanted, shipped(), wanted.removesuffix(".toml")
    if path.is_dir() and (path / "recipe.toml").is_file():
        path = path / "recipe.toml"  # a run directory holds its resolved recipe
    if not path.is_file() and short in catalogue:
        path = catalogue[short]
    if not path.is_file():
        files = {one.stem: str(Path(wanted).parent / one.name) for one in path.parent.glob("*.toml")}
        known = {**{name: name for name in catalogue}, **files}
        expected = f"a path, or one that ships: {', '.join(catalogue)}"
        near = known.get(nearest(Path(short).name, known), "")
        raise UserError(f"no recipe {wanted}", where=where, expected=expected, near=near)
    return path, f"pretrain/recipes/{path.name}" if path in catalogue.values() else _shown(path)


def _parse(path: Path, shown: str) -> tuple[Tree, dict[str, int]]:
    """A file's tree, and the line of every path in it. Raises UserError where it is no TOML."""
    data = path.read_bytes()
    try:
        text = data.decode().replace("\r\n", "\n")
        return tomllib.loads(text), dict(_lines(text))
    except UnicodeDecodeError as error:
        where = f"{shown}:{data[: error.start].count(10) + 1}"
        raise UserError(f"byte {data[error.start]:#x} is no UTF-8", where=where, expected="text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        where = f"{shown}:{at[1] if at else len(text.splitlines())}"
        raise UserError(re.sub(r" \(at .*\)$", "", str(error)), where=where, expected="TOML") from None


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """(dotted path, line) of every table and value of a TOML file that parses."""
    lines, prefix, arrays = text.split("\n"), "", dict[str, int]()
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

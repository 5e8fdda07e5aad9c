"""What the corpus and its steps are made of: all that goes into the names of their files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.base.extension import find, leaf
from pretrain.base.files import MANIFEST, manifest_digest, read_manifest
from pretrain.corpus.cut import CUT_VERSION
from pretrain.corpus.read_part import READ_VERSION
from pretrain.corpus.sources import SourceFile, source_file
from pretrain.recipe.corpus import Corpus, Source
from pretrain.recipe.schema import Leaf


def _version(step: Leaf) -> int:
    """The version of a leaf's code: VERSION in its file, 1 where it says none."""
    return getattr(find(step.kind, step.use), "VERSION", 1)


def settings(step: Leaf) -> dict[str, object]:
    """A leaf as it goes into a key: name, version, options; of files that an option names, their names and contents.

    The convention: an option that names files has `path=True` in its field's `recipe.schema.key`; it is then relative
    to the file that says it, and a changed file makes another key. Raises UserError where a file is missing.
    """
    paths = step.paths()
    names = {name: _each(value, lambda path: Path(path).name) for name, value in paths.items()}
    said = {"use": step.use, "version": _version(step), **step.options, **names}
    files = {name: _each(value, partial(_content, step, name)) for name, value in paths.items()}
    return {**said, "files": files} if paths else said


def _each(value: object, function: Callable[[str], str]) -> object:
    return [function(str(one)) for one in value] if isinstance(value, tuple) else function(str(value))


def _content(step: Leaf, option: str, name: str) -> str:
    """The digest of a file or folder that an option names; a word, such as "langid", stands for itself."""
    path = Path(name)
    if not path.is_absolute():
        return name
    if not path.exists():
        said, origin = f"{step.use}: {option}: no such file: {name}", step.layers.origin(f"{step.key}.{option}")
        raise UserError(said, where=str(origin) if origin.file else "", expected="one that is there")
    earlier = (path / MANIFEST).is_file()  # a corpus of the store
    return manifest_digest(read_manifest(path)) if earlier else source_file(path, path.name).digest


def made_of(corpus: Corpus, files: Mapping[str, Sequence[SourceFile]], seed: int) -> dict[str, object]:
    """All that a cut depends on."""
    sources = {
        one.name: {**reading_of(one), "files": {file.url: file.digest for file in files[one.name]}}
        for one in corpus.sources
    }
    steps = [settings(step.leaf) | ({"sources": sorted(step.sources)} if step.sources else {}) for step in corpus.steps]
    cut = {"held_out": corpus.held_out, "measure": corpus.measure, "dropped_text": corpus.dropped_text}
    return {"version": CUT_VERSION, "seed": seed, **cut, "sources": sources, "steps": steps}


def reading_of(source: Source) -> dict[str, object]:
    """What the rows of a source's files depend on, besides the files."""
    reading: dict[str, object] = {"license": source.license, "version": READ_VERSION, "read": source.reader.use}
    reading["reader"] = settings(source.reader)
    if getattr(leaf(source.reader.kind, source.reader.use), "payloads", False):
        reading["extract"] = settings(source.extract)
    return reading

"""From globs to input files with digests."""

import fnmatch
import glob
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.base.files import digest_file
from pretrain.recipe.corpus import Source


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `url` is stable where the machine's folders are not: "stdlib/json/decoder.py"."""

    path: Path
    url: str
    bytes: int
    digest: str


def source_files(source: Source, base: Path) -> list[SourceFile]:
    """Every file of a source by URL, each once. Raises UserError where a pattern finds none.

    A folder stands for all files below it. `exclude` globs are held against the URL and every part of it.
    """
    found: dict[str, Path] = {}
    for pattern in source.paths:
        matches = {url: path for url, path in _matches(pattern, base) if path.is_file()}
        if not matches:
            raise UserError(f"corpus.sources {source.name!r}: no file matches {pattern}", expected="at least one")
        found |= matches
    kept = {url: path for url, path in found.items() if not any(fnmatch.fnmatch(f"/{url}", e) for e in source.exclude)}
    if not kept:
        raise UserError(f"corpus.sources {source.name!r}: every file is excluded", expected="at least one that is not")
    return [SourceFile(path, url, path.stat().st_size, digest_file(path)) for url, path in sorted(kept.items())]


def _matches(pattern: str, base: Path) -> Iterator[tuple[str, Path]]:
    for name in ("stdlib", "packages"):
        if pattern.startswith(f"{{{name}}}"):
            folder = Path(sysconfig.get_path("purelib" if name == "packages" else name))
            yield from (
                (f"{name}/{path.relative_to(folder)}", path)
                for path in _glob(pattern.replace(f"{{{name}}}", str(folder)))
            )
            return
    base = base.resolve()
    for path in _glob(str(base / pattern)):
        yield str(path.relative_to(base)) if path.is_relative_to(base) else str(path), path


def _glob(pattern: str) -> list[Path]:
    whole = Path(pattern)
    return sorted(whole.rglob("*")) if whole.is_dir() else sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207, Path.glob takes no absolute pattern

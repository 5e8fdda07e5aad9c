"""From globs to input files with digests."""

import fnmatch
import glob
import gzip
import io
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.base.files import digest_file, digest_of
from pretrain.recipe.corpus import Source


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `url` is stable where the machine's folders are not: "stdlib/json/decoder.py"."""

    path: Path
    url: str
    bytes: int
    digest: str

    def open(self) -> BinaryIO:
        """Its bytes as they lie."""
        return self.path.open("rb")

    def plain(self) -> BinaryIO:
        """Its bytes, decompressed as a stream if they begin like gzip or Zstandard."""
        raw = self.open()
        start = raw.read(4)
        raw.seek(0)
        if start.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=raw)
            stream.myfileobj = cast(io.FileIO, raw)  # closed with it
            return cast(BinaryIO, stream)
        if start == b"\x28\xb5\x2f\xfd":
            frames = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            return cast(BinaryIO, io.BufferedReader(frames))
        return raw


def source_files(source: Source) -> list[SourceFile]:
    """Every file of a source by URL, each once. Raises UserError where a pattern finds none.

    A folder stands for all files below it. The URL begins with the last folder that a pattern names in full, and is the
    whole path where two files would share one. `exclude` globs are held against "/" and the URL.
    """
    folders = getattr(leaf(source.reader.kind, source.reader.use), "folders", False)
    found: dict[Path, str] = {}
    for pattern in source.paths:
        matches = {path: url for path, url in _matches(pattern, folders) if folders or path.is_file()}
        if not matches:
            raise UserError(f"corpus.sources {source.name!r}: no file matches {pattern}", expected="at least one")
        found |= matches
    kept = {path: url for path, url in found.items() if not any(fnmatch.fnmatch(f"/{url}", e) for e in source.exclude)}
    if not kept:
        raise UserError(f"corpus.sources {source.name!r}: every file is excluded", expected="at least one that is not")
    times = Counter(kept.values())
    named = {url if times[url] == 1 else str(path): path for path, url in kept.items()}
    return [source_file(path, url) for url, path in sorted(named.items())]


def source_file(path: Path, url: str) -> SourceFile:
    """A file, or a folder with all that it holds, named by its content; what is linked to is left out."""
    if path.is_file():
        return SourceFile(path, url, path.stat().st_size, digest_file(path))
    inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    names = {p.relative_to(path).as_posix(): digest_file(p) for p in inside}
    return SourceFile(path, url, sum(p.stat().st_size for p in inside), digest_of(names))


def _matches(pattern: str, folders: bool) -> Iterator[tuple[Path, str]]:
    """(file, URL) of a pattern."""
    for name in ("stdlib", "packages"):
        if pattern.startswith(f"{{{name}}}"):
            folder = Path(sysconfig.get_path("purelib" if name == "packages" else name))
            for path in _glob(pattern.replace(f"{{{name}}}", str(folder)), folders):
                yield path, f"{name}/{path.relative_to(folder)}"
            return
    whole = Path(pattern).absolute()
    wild = next((i for i, part in enumerate(whole.parts) if glob.has_magic(part)), len(whole.parts))
    root = Path(*whole.parts[: max(wild - 1, 1)])
    for path in _glob(str(whole), folders):
        yield path, str(path.relative_to(root))


def _glob(pattern: str, folders: bool) -> list[Path]:
    whole = Path(pattern)
    if whole.is_dir():
        return [whole] if folders else sorted(whole.rglob("*"))
    return sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute pattern)

"""From globs to input files with digests."""

import fnmatch
import glob
import gzip
import io
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import fsspec.core
import zstandard

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.base.files import digest, digest_file, digest_of
from pretrain.recipe.corpus import Source


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `url` is stable where the machine's folders are not: "stdlib/json/decoder.py"."""

    path: Path
    url: str
    bytes: int
    digest: str
    remote: str = ""  # its address in an object store; `path` is then where it lies while it is read

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
    kept = local_files(source)
    away = [file for pattern in source.paths if "://" in pattern for file in _remote(pattern)]
    away = [file for file in away if not _excluded(file.url, source)]
    if not kept and not away:
        raise _all_excluded(source)
    times = Counter(kept.values())
    named = {url if times[url] == 1 else str(path): path for path, url in kept.items()}
    here = [source_file(path, url) for url, path in named.items()]
    return sorted([*here, *away], key=lambda file: file.url)


def local_files(source: Source) -> dict[Path, str]:
    """URLs of the files on this machine, none of them opened. Raises UserError where a pattern finds none."""
    folders = getattr(leaf(source.reader.kind, source.reader.use), "folders", False)
    found, missing, here = dict[Path, str](), list[str](), [one for one in source.paths if "://" not in one]
    for pattern in here:
        matches = {path: url for path, url in _matches(pattern, folders) if folders or path.is_file()}
        missing += [] if matches else [pattern]
        found |= matches
    if missing:
        what = f"corpus.sources {source.name!r}: no file matches {' nor '.join(missing)}"
        raise UserError(what, where=_origin(source, "paths"), expected="at least one")
    kept = {path: url for path, url in found.items() if not _excluded(url, source)}
    if found and not kept and len(here) == len(source.paths):
        raise _all_excluded(source)
    return kept


def _all_excluded(source: Source) -> UserError:
    what = f"corpus.sources {source.name!r}: every file is excluded"
    return UserError(what, where=_origin(source, "exclude"), expected="at least one that is not")


def _excluded(url: str, source: Source) -> bool:
    return any(fnmatch.fnmatch(f"/{url}", pattern) for pattern in source.exclude)


def _origin(source: Source, name: str) -> str:
    """Where a key of a source was said, as its reader's table knows it."""
    origin = source.reader.layers.origin(f"{source.reader.key}.{name}")
    return str(origin) if origin.file else ""


def _remote(pattern: str) -> list[SourceFile]:
    """Files of an object store, or at an address; named by what the store says of them (its ETag, say)."""
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        names = system.glob(path) if glob.has_magic(path) else system.find(path) or [path]
        found = [(name, system.info(name), system.ukey(name)) for name in sorted(names)]
    except (ImportError, ValueError) as error:
        raise UserError(str(error), where=pattern, expected="pip install 'pretrain[remote]'") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error}", where=pattern, expected="an address that can") from None
    files = [(name, info, key) for name, info, key in found if info.get("type") == "file"]
    if not files:
        raise UserError("no file is there", where=pattern, expected="at least one")
    addresses = [(system.unstrip_protocol(name), info, key) for name, info, key in files]
    return [
        SourceFile(Path(), url, int(info.get("size") or 0), digest(key.encode()), url) for url, info, key in addresses
    ]


@contextmanager
def fetched(file: SourceFile) -> Iterator[SourceFile]:
    """The file where it can be read: one from an object store lies in a temporary folder meanwhile."""
    if not file.remote:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (file.remote.rpartition("/")[2] or "file")
        system, there = fsspec.core.url_to_fs(file.remote)
        system.get_file(there, str(path))
        yield replace(file, path=path, bytes=path.stat().st_size)


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

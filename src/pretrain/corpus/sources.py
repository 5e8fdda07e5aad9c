"""From globs to input files with digests."""

import fnmatch
import glob
import gzip
import io
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import fsspec.core
import zstandard

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.base.files import digest, digest_file, digest_of
from pretrain.recipe.corpus import Source

LEAVES = "a link that leaves the folder"
SETTLED_SECONDS = 2  # after which a file that has not changed is taken to be done


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `url` is stable where the machine's folders are not: "stdlib/json/decoder.py"."""

    path: Path
    url: str
    bytes: int
    digest: str
    remote: str = ""  # its address in an object store; `path` is then where it lies while it is read
    flaw: str = ""  # why it is not read
    span: tuple[int, int, int] | None = (
        None  # of a large file, the part to read: start, stop, number of its first record
    )

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


@dataclass
class Digests:
    """Digests of files; remembered by path, inode, size and time, so that a corpus can be looked at without reading it.

    A file that was written just now is not remembered, since it may be written again in the same tick.
    """

    known: dict[str, list] = field(default_factory=dict)
    learned: bool = False  # whether there is more to remember than before

    def of(self, path: Path) -> str:
        """A file's digest, read where it is not known."""
        stat = path.stat()
        state, name = [stat.st_ino, stat.st_size, stat.st_mtime_ns], str(path)
        if (found := self.known.get(name)) is not None and found[:-1] == state:
            return found[-1]
        content = digest_file(path)
        if time.time_ns() - stat.st_mtime_ns > SETTLED_SECONDS * 10**9:
            self.known[name], self.learned = [*state, content], True
        return content


def source_files(source: Source, digests: Digests | None = None) -> list[SourceFile]:
    """Every file of a source by URL, each once. Raises UserError where a pattern finds none.

    A folder stands for all files below it. The URL begins with the last folder that a pattern names in full, and is the
    whole path where two files would share one. `exclude` globs are held against "/" and the URL. A link that leaves the
    folder which a pattern names in full is not followed.
    """
    digests, kept = digests or Digests(), local_files(source)
    away = [file for pattern in source.paths if "://" in pattern for file in _remote(pattern)]
    away = [file for file in away if not _excluded(file.url, source)]
    if not kept and not away:
        raise _all_excluded(source)
    times = Counter(url for url, _ in kept.values())
    here = [
        SourceFile(path, name, 0, digest(LEAVES.encode()), flaw=LEAVES) if leaves else source_file(path, name, digests)
        for path, (url, leaves) in kept.items()
        for name in [url if times[url] == 1 else str(path)]
    ]
    return sorted([*here, *away], key=lambda file: file.url)


def local_files(source: Source) -> dict[Path, tuple[str, bool]]:
    """The files on this machine, none of them opened: URL, and whether it is a link that leaves its folder.

    Raises UserError where a pattern finds none.
    """
    folders = getattr(leaf(source.reader.kind, source.reader.use), "folders", False)
    found = dict[Path, tuple[str, bool]]()
    missing, here = list[str](), [one for one in source.paths if "://" not in one]
    for pattern in here:
        fixed, every = _matches(pattern, folders)
        matches = {path: url for path, url in every if folders or path.is_file()}
        missing += [] if matches else [pattern]
        found |= {path: (url, not path.resolve().is_relative_to(fixed)) for path, url in matches.items()}
    if missing:
        what = f"corpus.sources {source.name!r}: no file matches {' nor '.join(missing)}"
        raise UserError(what, where=_origin(source, "paths"), expected="at least one")
    kept = {path: (url, leaves) for path, (url, leaves) in found.items() if not _excluded(url, source)}
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
    except FileNotFoundError:
        raise UserError("no such file", where=pattern, expected="at least one") from None
    except Exception as error:  # each store has its own, not all of them an OSError
        said = f"cannot be reached: {type(error).__name__}: {error}".splitlines()[0]
        raise UserError(said, where=pattern, expected="an address that can be") from None
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


def source_file(path: Path, url: str, digests: Digests | None = None) -> SourceFile:
    """A file, or a folder with all that it holds, named by its content; of what is linked to, only that it is."""
    digests = digests or Digests()
    if path.is_file():
        return SourceFile(path, url, path.stat().st_size, digests.of(path))
    inside = sorted(p for p in path.rglob("*") if p.is_symlink() or p.is_file())
    names = {p.relative_to(path).as_posix(): "a link" if p.is_symlink() else digests.of(p) for p in inside}
    return SourceFile(path, url, sum(p.lstat().st_size for p in inside), digest_of(names))


def _matches(pattern: str, folders: bool) -> tuple[Path, list[tuple[Path, str]]]:
    """What a pattern names in full, links resolved, and (file, URL) of what it finds."""
    for name in ("stdlib", "packages"):
        if pattern.startswith(f"{{{name}}}"):
            folder = Path(sysconfig.get_path("purelib" if name == "packages" else name))
            found = _glob(pattern.replace(f"{{{name}}}", str(folder)), folders, folder.resolve())
            return folder.resolve(), [(path, f"{name}/{path.relative_to(folder)}") for path in found]
    whole = Path(pattern).absolute()
    wild = next((i for i, part in enumerate(whole.parts) if glob.has_magic(part)), len(whole.parts))
    root = Path(*whole.parts[: max(wild - 1, 1)])
    fixed = Path(*whole.parts[:wild]).resolve()
    return fixed, [(path, str(path.relative_to(root))) for path in _glob(str(whole), folders, fixed)]


def _glob(pattern: str, folders: bool, fixed: Path) -> list[Path]:
    """Files and folders, by path; not again those that ** finds 40 times through a link to a folder around it."""

    @cache
    def goes_round(folder: Path) -> bool:
        if folder.is_symlink():
            target = folder.resolve()
            if target.is_relative_to(fixed) and folder.parent.resolve().is_relative_to(target):
                return True
        return folder != folder.parent and goes_round(folder.parent)

    whole = Path(pattern)
    if whole.is_dir():
        return [whole] if folders else sorted(whole.rglob("*"))
    found = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    return sorted(path for path in found if not goes_round(path.parent))

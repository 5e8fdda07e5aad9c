"""Files that are whole or absent: written beside, synced, renamed; folders sealed by a manifest of digests."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import xxhash

from pretrain.base.errors import DamagedError, DiskFullError
from pretrain.base.remote import Place, Remote

MANIFEST = "manifest.json"
CHUNK = 1 << 20  # bytes read at a time when a file is digested


class Entry(TypedDict):
    """A file in a manifest: its size in bytes and the xxh3-128 digest of its content."""

    bytes: int
    digest: str


def digest(data: bytes) -> str:
    """32 hexadecimal digits (xxh3-128) that name these bytes."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_of(value: object) -> str:
    """The digest of a JSON value, whatever the order of its keys."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())


def digest_file(path: Place) -> str:
    """The digest of a file's content, read in chunks."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()


def write(path: Place, data: str | bytes) -> None:
    """Replaces a file as a whole: after a crash the old or the new content is there. Raises DiskFullError.

    One writer at a time: of what two processes could write, callers hold a lock.
    """
    if isinstance(path, Remote):
        return path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    with room_for(path):
        try:
            with beside.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            sync_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def stream(path: Place, chunks: Iterable[memoryview]) -> Entry:
    """Writes a new file as its bytes come, syncs it and compares their digest with what is then there; of an object
    store only the size, as it digests what it is sent itself. Raises DiskFullError, DamagedError."""
    state, size = xxhash.xxh3_128(), 0
    with room_for(path), path.open("wb") as file:
        for chunk in chunks:
            state.update(chunk)
            size += file.write(chunk)
        if isinstance(path, Path):
            file.flush()
            os.fsync(file.fileno())
    same = path.size() == size if isinstance(path, Remote) else digest_file(path) == state.hexdigest()
    if not same:
        raise DamagedError("what was written is not what is read back", where=str(path), expected="a sound disk")
    return Entry(bytes=size, digest=state.hexdigest())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A partial folder to fill; sealed with a manifest, synced and renamed to `path` at the end, removed on failure.

    Replaces a folder that stands at `path`. Raises DiskFullError.
    """
    partial = partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    partial.mkdir(parents=True)
    try:
        with room_for(path):
            yield partial
            seal(partial)
            publish(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(path: Path) -> Path:
    """Where a folder is filled that will be `path`."""
    return path.with_name(f".{path.name}.partial")


def publish(path: Path) -> None:
    """Renames the partial folder of `path`, which is sealed, to `path`; replaces a folder that stands there."""
    replaced = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    partial_of(path).rename(path)
    sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def seal(folder: Path) -> None:
    """Writes the manifest of all files in a folder and syncs every file and folder to the disk."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    entries = {str(p.relative_to(folder)): Entry(bytes=p.stat().st_size, digest=digest_file(p)) for p in files}
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    write_manifest(folder, entries)
    for inner in [*(p for p in folder.rglob("*") if p.is_dir()), folder]:
        sync_folder(inner)


def write_manifest(folder: Place, entries: Mapping[str, Entry]) -> None:
    """What a folder holds; the last of its files to be written."""
    write(folder / MANIFEST, json.dumps(entries, indent=1, sort_keys=True))


def read_manifest(folder: Place) -> dict[str, Entry]:
    """The manifest of a sealed folder. Raises DamagedError where it is missing or unreadable."""
    try:
        entries = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        raise DamagedError("no readable manifest.json", where=str(folder), expected="a finished folder") from None
    if not isinstance(entries, dict):
        raise DamagedError("manifest.json holds no table", where=str(folder), expected="a finished folder")
    return entries


def verify(folder: Place, *, content: bool = True, share: tuple[int, int] = (0, 1)) -> dict[str, Entry]:
    """Reads a sealed folder back against its manifest: sizes, and digests if `content`. Raises DamagedError.

    Where several readers `share` the work, (this one's number, how many), each takes every n-th, the largest first.
    """
    entries, (number, count) = read_manifest(folder), share
    for name in sorted(entries, key=lambda name: (-entries[name]["bytes"], name))[number::count]:
        file, entry = folder / name, entries[name]
        try:
            size = file.size() if isinstance(file, Remote) else file.stat().st_size
        except FileNotFoundError:
            raise DamagedError("file is missing", where=str(file)) from None
        if size != entry["bytes"]:
            raise DamagedError(f"holds {size} bytes", where=str(file), expected=f"{entry['bytes']}")
        if content and digest_file(file) != entry["digest"]:
            raise DamagedError("content differs from its digest", where=str(file), expected=entry["digest"])
    return entries


def manifest_digest(entries: Mapping[str, Entry]) -> str:
    """One digest for all files of a manifest."""
    return digest_of({name: entry["digest"] for name, entry in entries.items()})


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def room_for(path: Place) -> Iterator[None]:
    """Turns "no space left" (ENOSPC, EDQUOT, EFBIG) into DiskFullError with the path and what is free."""
    try:
        yield
    except Exception as error:
        if isinstance(path, Remote) or _error_number(error) not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        nearest_folder = next(p for p in path.absolute().parents if p.exists())
        free = shutil.disk_usage(nearest_folder).free
        raise DiskFullError(f"the disk is full ({free:,} bytes free)", where=str(path)) from None


def _error_number(error: Exception) -> int | None:
    """The system's error number; libraries in Rust (safetensors, tokenizers) only write it into their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None

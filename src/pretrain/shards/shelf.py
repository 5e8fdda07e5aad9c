"""Open shards, the last used ones; those of an object store lie in a cache of bounded size, fetched ahead."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec.core

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import room_for
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard

OPEN = 32  # shards of a source that are open at once: an order's chunk lies in few


class Cache:
    """A folder that holds at most `most_bytes` of fetched files, the last used ones; processes may share it."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._locks: dict[str, threading.Lock] = {}
        self._pool = ThreadPoolExecutor(2, "fetch")

    def close(self) -> None:
        """Waits for what is being fetched."""
        self._pool.shutdown()

    def ahead(self, url: str, name: str) -> None:
        """Fetches a file in the background, unless it is here; what goes wrong is said when it is used."""

        def fetch() -> None:
            with suppress(UserError, OSError):
                self.fetch(url, name)

        if not (self.folder / name).exists():
            self._pool.submit(fetch)

    def fetch(self, url: str, name: str) -> Path:
        """Where the file lies here; read against its digest before it is taken in. Raises DamagedError, UserError."""
        path = self.folder / name
        with self._locks.setdefault(name, threading.Lock()):
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                partial = self.folder / f".{name}.{os.getpid()}.partial"
                with room_for(path):
                    try:
                        _get(url, partial)
                        Shard(partial).verify()
                        partial.replace(path)
                    except DamagedError as error:
                        raise DamagedError(error.what, where=url, expected=error.expected) from None
                    finally:
                        partial.unlink(missing_ok=True)
                self._make_room(path)
            os.utime(path)
        return path

    def _make_room(self, newest: Path) -> None:
        """Removes what was used longest ago until the rest fits; what is mapped somewhere stays readable there."""
        found = []
        for path in self.folder.glob("*.shard"):
            with suppress(FileNotFoundError):  # another process made room too
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.most_bytes:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def _get(url: str, path: Path) -> None:
    """A file of an object store, in chunks. Raises DamagedError where it is gone, UserError where it cannot be read."""
    try:
        system, there = fsspec.core.url_to_fs(url)
        system.get_file(there, str(path))
    except FileNotFoundError:
        raise DamagedError("the shard is gone", where=url, expected="a file of its catalogue") from None
    except (ImportError, ValueError) as error:
        raise UserError(str(error), where=url, expected="pip install 'pretrain[remote]'") from None


class Shelf:
    """The shards of a catalogue, opened when they are first used."""

    def __init__(self, catalogue: Catalogue, cache: Cache | None = None) -> None:
        self.catalogue, self._cache = catalogue, cache
        self._open: OrderedDict[int, tuple[Path, Shard]] = OrderedDict()
        self._lock = threading.Lock()

    def shard(self, number: int) -> Shard:
        """An open shard by its number in the catalogue. Raises DamagedError."""
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number][1]
            entry = self.catalogue.shards[number]
            place = self.catalogue.place(entry)
            path = self._fetched(place, entry.name) if "://" in place else Path(place)
            shard = Shard(path)
            if shard.digest != entry.digest:
                raise DamagedError("another shard than its catalogue says", where=place, expected=entry.digest)
            self._open[number] = path, shard
            for old in [one for one, (there, _) in self._open.items() if not there.exists()]:
                self._open.pop(old)  # its file has made room: let go of it
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
            return shard

    def ahead(self, numbers: Iterable[int]) -> None:
        """Begins to fetch shards that will be asked for."""
        for number in numbers:
            entry = self.catalogue.shards[number]
            place = self.catalogue.place(entry)
            if self._cache is not None and "://" in place:
                self._cache.ahead(place, entry.name)

    def _fetched(self, place: str, name: str) -> Path:
        if self._cache is None:
            raise UserError("shards of an object store need a cache", where=place, expected="a folder for it")
        return self._cache.fetch(place, name)

"""A folder or file of an object store by URL (fsspec), in the few words of pathlib that a checkpoint is read by."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pretrain.base.errors import UserError


@dataclass(frozen=True)
class Remote:
    """Reads and writes raise FileNotFoundError where nothing is, UserError where the store cannot be used."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rstrip("/").rpartition("/")[2]

    @contextmanager
    def _there(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it; what goes wrong is said in one line."""
        import fsspec.core  # a tenth of a second that files of this machine do not need

        try:
            yield fsspec.core.url_to_fs(self.url)
        except FileNotFoundError:
            raise FileNotFoundError(self.url) from None
        except ValueError as error:
            raise UserError(str(error), where=self.url, expected="such as s3://bucket/folder") from None
        except ImportError as error:
            raise UserError(str(error), where=self.url, expected="pip install 'pretrain[remote]'") from None
        except UserError:
            raise
        except Exception as error:  # stores' libraries have errors of their own
            what = f"the store cannot be used: {error or type(error).__name__}"
            raise UserError(what, where=self.url, expected="one that can be reached, read and written") from error

    def names(self) -> list[str]:
        """What lies in this folder, sorted; nothing where there is none."""
        with self._there() as (system, path):
            try:
                found = system.ls(path, detail=False, refresh=True)
            except FileNotFoundError:
                return []
            return sorted({one.rstrip("/").rpartition("/")[2] for one in found})

    def size(self) -> int:
        """Bytes of this file."""
        with self._there() as (system, path):
            system.invalidate_cache()
            return int(system.info(path)["size"])

    def is_file(self) -> bool:
        """Whether this file is there."""
        try:
            self.size()
        except FileNotFoundError:
            return False
        return True

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """This file, or bytes `start` to `end` of it."""
        with self._there() as (system, path):
            return system.cat_file(path, start=start, end=end)

    def write_bytes(self, data: bytes) -> None:
        """Puts a file there, as a whole."""
        with self._there() as (system, path):
            system.pipe_file(path, data)

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[IO[bytes]]:
        """A stream; what is written counts from its end on."""
        with self._there() as (system, path), system.open(path, mode) as file:
            yield file

    def remove(self) -> None:
        """This file or folder with all that is in it, if it is there."""
        with self._there() as (system, path):
            system.invalidate_cache()
            if system.exists(path):
                system.rm(path, recursive=True)


Place = Path | Remote


def place(said: str | Path) -> Place:
    """What a path or a URL names."""
    text = str(said)
    return Remote(text) if "://" in text and not text.startswith("file://") else Path(text.removeprefix("file://"))


def names(folder: Place) -> list[str]:
    """What lies in a folder, sorted; nothing where there is none."""
    if isinstance(folder, Remote):
        return folder.names()
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def try_out(folder: Place) -> None:
    """Writes a file into a folder and removes it. Raises UserError where that cannot be done."""
    mark, expected = folder / ".try", "a place that can be made and written"
    try:
        if isinstance(mark, Remote):
            mark.write_bytes(b"")
        else:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    except FileNotFoundError:
        raise UserError("there is no such place", where=str(folder), expected=expected) from None
    except OSError as error:
        raise UserError(error.strerror or str(error), where=str(folder), expected=expected) from None
    remove(mark)


def remove(what: Place) -> None:
    """A file or folder with all that is in it, if it is there."""
    if isinstance(what, Remote):
        what.remove()
    elif what.is_dir():
        shutil.rmtree(what)
    else:
        what.unlink(missing_ok=True)

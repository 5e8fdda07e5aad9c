"""All shards of a folder in one small file."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import fsspec.core

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import digest_of
from pretrain.shards.format import CATALOGUE, SHARD_VERSION

NAME = re.compile(r"[0-9a-f]{32}\.shard")


@dataclass(frozen=True)
class Entry:
    """A shard file by name: its tokens and documents, the digest of its content, and the largest id in it."""

    name: str
    tokens: int
    documents: int
    digest: str
    largest: int = 0


@dataclass(frozen=True)
class Catalogue:
    """The shards of a folder, in the order in which they were written; `at` is where they lie, if not in it.

    `tokenizer` is the digest of the one that made them, "" where it is not known, and `end` its document-end id.
    """

    folder: Path
    dtype: str
    vocab_size: int
    tokenizer: str
    end: int | None
    shards: tuple[Entry, ...]
    at: str = ""

    @classmethod
    def load(cls, folder: Path) -> "Catalogue":
        """Reads catalogue.json. Raises UserError where there is none, DamagedError where it cannot be read."""
        try:
            return cls.parse((folder / CATALOGUE).read_bytes(), folder, str(folder))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"no {CATALOGUE}", where=str(folder), expected="a folder of token shards") from None

    @classmethod
    def parse(cls, data: bytes, folder: Path, where: str) -> "Catalogue":
        """Of a file's bytes. Raises UserError for another version, DamagedError where they cannot be read."""
        try:
            table = json.loads(data)
            version = table.pop("version")
            if version != SHARD_VERSION:
                expected = f"version {SHARD_VERSION}: make the tokens again"
                raise UserError(f"shards of version {version}", where=f"{where}/{CATALOGUE}", expected=expected)
            shards = tuple(Entry(**entry) for entry in table.pop("shards"))
            if odd := [entry.name for entry in shards if not NAME.fullmatch(entry.name)]:
                raise ValueError(odd[0])  # it is made into a path, here and in the cache
            return cls(folder, shards=shards, **table)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedError(
                "cannot be read", where=f"{where}/{CATALOGUE}", expected="a catalogue of shards"
            ) from None

    def place(self, entry: Entry) -> str:
        """Where a shard lies: a path or a URL."""
        return f"{self.at or self.folder}/{entry.name}"

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return sum(entry.tokens for entry in self.shards)

    @property
    def documents(self) -> int:
        """Documents in all shards."""
        return sum(entry.documents for entry in self.shards)

    @property
    def digest(self) -> str:
        """Names the content of all shards in their order."""
        return digest_of([entry.digest for entry in self.shards])


def read_bytes(place: str) -> bytes:
    """A small file at a path or a URL. Raises FileNotFoundError, and UserError for an address that cannot be read."""
    try:
        system, path = fsspec.core.url_to_fs(place)
        return system.cat_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(place) from None
    except (ImportError, ValueError) as error:
        raise UserError(str(error), where=place, expected="pip install 'pretrain[remote]'") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error}", where=place, expected="an address that can") from None

"""All shards of a folder in one small file."""

import json
from dataclasses import dataclass
from pathlib import Path

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import digest_of
from pretrain.shards.format import CATALOGUE, SHARD_VERSION


@dataclass(frozen=True)
class Entry:
    """A shard file by name, with its numbers of tokens and documents and the digest of its content."""

    name: str
    tokens: int
    documents: int
    digest: str


@dataclass(frozen=True)
class Catalogue:
    """The shards of a folder, in the order in which they were written."""

    folder: Path
    dtype: str
    shards: tuple[Entry, ...]

    @classmethod
    def load(cls, folder: Path) -> "Catalogue":
        """Reads catalogue.json. Raises UserError where there is none, DamagedError where it cannot be read."""
        path = folder / CATALOGUE
        try:
            table = json.loads(path.read_bytes())
            if table["version"] != SHARD_VERSION:
                expected = f"version {SHARD_VERSION}"
                raise UserError(f"shards of version {table['version']}", where=str(path), expected=expected)
            return cls(folder, str(table["dtype"]), tuple(Entry(**entry) for entry in table["shards"]))
        except FileNotFoundError:
            raise UserError(f"no {CATALOGUE}", where=str(folder), expected="a folder of token shards") from None
        except (ValueError, KeyError, TypeError):
            raise DamagedError("cannot be read", where=str(path), expected="a catalogue of shards") from None

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

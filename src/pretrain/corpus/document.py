"""What the corpus is made of: documents, and what steps say of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pretrain.base.files import digest
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Document:
    """Clean text of one record; `id` is the digest of its source file and its place there, `content` of the text."""

    id: str
    source: str
    url: str
    text: str
    language: str | None = None
    license: str | None = None
    date: str | None = None

    @cached_property
    def content(self) -> str:
        """Digest of the text: equal for exact copies."""
        return digest(self.text.encode("utf-8", "surrogatepass"))

    @cached_property
    def words(self) -> list[str]:
        """The text between white space, split once for all steps."""
        return self.text.split()


@dataclass(frozen=True)
class Flaw:
    """A record that became no document, and why."""

    url: str
    reason: str


@dataclass(frozen=True)
class Rule:
    """A bound on a measure; a document outside it is dropped for `reason`."""

    measure: str
    reason: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value is inside."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Reader(Protocol):
    """A leaf of `corpus/read`."""

    def read(self, file: SourceFile, source: str) -> Iterator[Document | Flaw]:
        """The documents of a file, and the flaws of records that are none. Raises UserError for a wrong file."""
        ...


class Filter(Protocol):
    """A leaf of `corpus/filters`."""

    def measure(self, document: Document) -> dict[str, float]:
        """Numbers of one document, whatever the verdict."""
        ...

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        ...

"""What the corpus is made of: records as found, documents, and what steps say of them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from pretrain.base.files import digest
from pretrain.corpus.sources import SourceFile

LONGEST = 32 * 2**20  # bytes of a record's payload or text; a longer one is a flaw
# Written without spaces: a character, with its marks, is a word (Thai, Lao, Burmese, Khmer, kana, Han).
_ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Accents and vowel signs, which are no letters to `re`: without them every Hindi word falls to pieces.
_MARKS = r"\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
_MARKS += r"\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
_MARKS += r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
_MARKS += "".join(  # the Indic blocks are laid out alike
    rf"\u{b:04x}-\u{b + 3:04x}\u{b + 0x3A:04x}-\u{b + 0x3C:04x}\u{b + 0x3E:04x}-\u{b + 0x4F:04x}"
    rf"\u{b + 0x51:04x}-\u{b + 0x57:04x}\u{b + 0x62:04x}\u{b + 0x63:04x}"
    for b in range(0x0900, 0x0D80, 0x80)
)
_MARKS += r"\u0a70\u0a71\u0d81-\u0d83\u0dca-\u0ddf\u102b-\u103e\u1056-\u1059\u17b4-\u17d3\u3099\u309a"
WORD = re.compile(rf"[^\W{_ALONE}]+(?:(?:[{_MARKS}]+|['’])[^\W{_ALONE}]+)*[{_MARKS}]*|[{_ALONE}][{_MARKS}]*")


@dataclass(frozen=True)
class Record:
    """What a reader finds: its text, or the bytes of a payload (`data`) from which an extractor takes the text.

    `place` is where it stands in its file (byte offset, line, row or member): with the file's digest it is the
    document's id, so no two records of a file share one.
    """

    place: int
    url: str
    text: str | None = None
    data: bytes = b""
    media_type: str = "text/plain"
    title: str = ""
    language: str | None = None
    license: str | None = None
    date: str | None = None  # ISO 8601
    group: str = ""  # documents that stay together: the files of a repository
    measures: Mapping[str, float] = field(default_factory=dict)  # what the reader counted: pages, skipped bytes


@dataclass(frozen=True)
class Flaw:
    """A record that became no document, and why."""

    place: int
    url: str
    reason: str
    text: str = ""


@dataclass(frozen=True)
class Document:
    """Clean text of one record; `id` is the digest of its source file and its place there, `content` of the text."""

    id: str
    source: str
    url: str
    text: str
    file: str = ""
    place: int = 0
    title: str = ""
    language: str | None = None
    license: str | None = None
    date: str | None = None
    group: str = ""

    @cached_property
    def content(self) -> str:
        """Digest of the text: equal for exact copies."""
        return digest(self.text.encode("utf-8", "surrogatepass"))

    @cached_property
    def words(self) -> list[str]:
        """Runs of letters and digits, in order; split once for all steps."""
        return WORD.findall(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that say something, without the white space around them; the fence of a code block says nothing."""
        return [line for raw in self.text.split("\n") if (line := raw.strip()) and line != "```"]


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
    """A leaf of `corpus/read`. With `folders = True` a folder that a pattern names is one source file.

    `places` is the word for where a record of several stands in its file: "line", "row", "byte offset".
    With `spans(file, size)` (corpus/spans.py) a large file is read in parts: `read` finds each in `file.span`.
    """

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """The records of a file in order, and the flaws of those that are none. Raises UserError for a wrong file."""
        ...


class Extractor(Protocol):
    """A leaf of `corpus/extract`."""

    def extract(self, record: Record) -> Record | Flaw:
        """The record with `text` taken out of `data`, or why there is none."""
        ...


class Filter(Protocol):
    """A leaf of `corpus/filters`. With `gpu = True` a cluster's engine runs it where there is one."""

    def measure(self, document: Document) -> Mapping[str, float | str]:
        """Numbers of one document, whatever the verdict; a string is for the report."""
        ...

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        ...


class Edit(Protocol):
    """A leaf of `corpus/edits`: changes a document's text or names its language."""

    def edit(self, document: Document) -> tuple[Document, Mapping[str, float | str]]:
        """The document as it goes on, and numbers of what was done; a string is for the report."""
        ...

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        ...

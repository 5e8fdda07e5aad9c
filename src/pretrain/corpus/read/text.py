"""Text and code files: a document a file, UTF-8."""

from collections.abc import Iterator
from dataclasses import dataclass

from pretrain.corpus.decode import DAMAGED
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Text:
    """The whole file is the text; a byte-order mark is taken off."""

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """One record, or the flaw of a file that is not UTF-8, holds nothing or too much."""
        try:
            with file.plain() as stream:
                data = stream.read(LONGEST + 1)
        except DAMAGED:
            yield Flaw(0, file.url, "damaged compression")
            return
        if len(data) > LONGEST:
            yield Flaw(0, file.url, "too large")
            return
        try:
            text = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            yield Flaw(0, file.url, "not UTF-8")
            return
        yield Record(0, file.url, text) if text.strip() else Flaw(0, file.url, "empty")

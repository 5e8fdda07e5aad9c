"""Text and code files: a document a file, UTF-8."""

from collections.abc import Iterator
from dataclasses import dataclass

from pretrain.base.files import digest
from pretrain.corpus.document import Document, Flaw
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Text:
    """The whole file is the text; a byte-order mark is taken off."""

    def read(self, file: SourceFile, source: str) -> Iterator[Document | Flaw]:
        """One document, or the flaw of a file that is not UTF-8 or holds nothing."""
        try:
            text = file.path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            yield Flaw(file.url, "not UTF-8")
            return
        yield (
            Document(digest(f"{file.digest} {file.url}".encode()), source, file.url, text)
            if text.strip()
            else Flaw(file.url, "empty")
        )

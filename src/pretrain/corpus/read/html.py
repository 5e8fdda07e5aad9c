"""Pages as files, plain, gzip or Zstandard."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pretrain.corpus.decode import DAMAGED
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Html:
    """A page a file."""

    payloads: ClassVar[bool] = True

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """The page's bytes, or the flaw of a file that is damaged, empty or too large."""
        try:
            with file.plain() as stream:
                data = stream.read(LONGEST + 1)
        except DAMAGED:
            yield Flaw(0, file.url, "damaged compression")
            return
        if len(data) > LONGEST or not data.strip():
            yield Flaw(0, file.url, "too large" if data.strip() else "empty")
            return
        yield Record(0, file.url, None, data, "text/html")

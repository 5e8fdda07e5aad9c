"""JSON Lines (jsonlines.org), plain, gzip or Zstandard: a document a line."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from pretrain.base.errors import nearest
from pretrain.corpus.decode import DAMAGED
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Jsonl:
    """Names of the fields, with dots into nested tables: `url = "metadata.url"`."""

    places: ClassVar[str] = "line"
    text: str = key("field of the text", "text")
    url: str = key("field of the address", "url")
    date: str = key("field of the date", "date")
    language: str = key("field of the language", "language")
    license: str = key("field of the licence", "license")

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """A record a line; a line that is no JSON, has no such field or no text in it, is a flaw with its number."""
        start, stop, first = file.span or (0, None, 1)
        number = first - 1
        with file.plain() as stream:
            try:
                if start:
                    stream.seek(start)
                for number, line in enumerate(_lines(stream, stop), first):
                    yield self._record(file, number, line)
            except DAMAGED:
                yield Flaw(number + 1, f"{file.url}:{number + 1}", "damaged compression, the rest is left out")

    def spans(self, file: SourceFile, size: int) -> Iterator[tuple[int, int, int]]:
        """Runs of whole lines of about `size` bytes: (first byte, where it ends, number of its first line)."""
        with file.open() as stream:
            if stream.read(4).startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
                return  # compressed: it is read in one go
            stream.seek(0)
            start, end, first, after = 0, 0, 1, 1
            while block := stream.read(size):
                end, after, last = end + len(block), after + block.count(b"\n"), block[-1:]
                while last != b"\n" and (rest := stream.readline(LONGEST)):
                    end, after, last = end + len(rest), after + rest.endswith(b"\n"), rest[-1:]
                yield start, end, first
                start, first = end, after

    def _record(self, file: SourceFile, number: int, line: bytes | None) -> Record | Flaw:
        where = f"{file.url}:{number}"
        if line is None:
            return Flaw(number, where, "line too long")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return Flaw(number, where, "no JSON")
        if not isinstance(record, dict):
            return Flaw(number, where, "no text")
        text = field(record, self.text)
        if text is None and self.text.partition(".")[0] not in record:
            near = nearest(self.text, record)
            return Flaw(number, where, f"no field {self.text!r}" + (f", nearest: {near}" if near else ""))
        if not isinstance(text, str) or not text.strip():
            return Flaw(number, where, "no text")
        return Record(
            number,
            said(record, self.url) or where,
            text,
            date=said(record, self.date),
            language=said(record, self.language),
            license=said(record, self.license),
        )


def field(record: object, name: str) -> object:
    """A value by its name, or by a name with dots in nested tables."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    first, _, rest = name.partition(".")
    return field(record.get(first), rest) if rest and isinstance(record, Mapping) else None


def said(record: object, name: str) -> str | None:
    """A value that is a word, or none."""
    found = field(record, name)
    return str(found) if isinstance(found, (str, int)) and str(found) else None


def _lines(stream: BinaryIO, stop: int | None) -> Iterator[bytes | None]:
    """Lines until `stop`, in bytes; None stands for one that is too long to hold."""
    while (stop is None or stream.tell() < stop) and (line := stream.readline(LONGEST)):
        if len(line) == LONGEST and not line.endswith(b"\n"):
            while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield line
